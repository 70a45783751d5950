"""Recipes: named settings as TOML files, see `ciss_fast.engine.recipes`."""
