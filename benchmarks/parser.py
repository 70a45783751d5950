"""The command line of the benchmarks' commands."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ciss_fast.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (--help lists the options)")
