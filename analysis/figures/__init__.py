"""Figures for papers, one module each: `draw(table)` takes a tidy table from any source and gives a `style.Drawn`;
`style.save` writes it. A new figure is a module with `draw`, and one row in `analysis.pipeline.FIGURES` that says how
run folders feed it.
"""
