"""One HTML page about run folders: `page.write_report` writes it, with all that it needs inside.

`overview` makes the table of runs, `plots` the interactive forms of figures, `explorer` the points and frames of latent
spaces, `page` puts them into `page.html`. A figure without a row in `plots.FORMS` is shown as its picture and numbers.
Names from run folders are data: Jinja escapes them in the page, `page` in JSON, `plots.plain` in what plotly draws.
"""
