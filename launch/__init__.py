"""The launchers: one verb each, run as `python -m launch.VERB`."""
