"""The errors a user can cause; the command line prints them as one line."""


class CissFastError(Exception):
    """Base of all errors that name a file, an argument or a setting the user can mend."""


class ConfigError(CissFastError):
    """A setting, task, method or recipe that does not exist or does not fit."""


class DataError(CissFastError):
    """A missing, damaged or inconsistent image, label map, list or data folder."""


class CheckpointError(CissFastError):
    """A checkpoint or results folder that is missing, damaged or belongs to another run."""


class DamagedFile(CheckpointError):
    """A file whose content is not what was written."""
