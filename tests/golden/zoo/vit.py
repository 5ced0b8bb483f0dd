"""Vision transformers written out with plain functions as the independent side, until other libraries take over.

Replace by transformers / official sources (see the issue).
"""

SOURCE = ""
