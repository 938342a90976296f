"""Raw events -> sessions that a model can learn from.

A data set is described once (`preprocessing.settings.Dataset`, usually a short YAML); `preprocess` turns its
events into a ``features/`` folder: train, valid and test sessions as parquet, the schema, the fitted NVTabular
workflow and a manifest. Importing this package costs nothing; NVTabular is loaded when a workflow is built.
"""
