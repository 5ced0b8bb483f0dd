"""The command line; `mbrl_pvr.cli.main:main` is its entry."""
