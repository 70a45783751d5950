"""Running an experiment: configuration (`config`), training (`run.train`), scores, results folder,
comparison.
"""
