"""Recipes: named settings as TOML files, see `ciss_fast.engine.config.load_recipe`."""
