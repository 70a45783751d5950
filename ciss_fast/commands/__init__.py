"""The subcommands of ciss-fast, a module each: `add_parser` declares its options and what runs it."""
