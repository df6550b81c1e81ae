"""What the configuration refuses, in one sentence that names the value and what would be right. Standard library only."""


class ConfigError(ValueError):
    """A setting was refused; the message names the value and what would be right."""


def check(ok: bool, what: str, value: object, right: str) -> None:
    """Raise ConfigError in one sentence unless `ok`."""
    if not ok:
        raise ConfigError(f"{what} = {value!r} is refused: want {right}")


def check_count(value: object, least: int, what: str) -> None:
    """Refuse what is not a whole number of at least `least`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    check(whole and value >= least, what, value, f"a whole number, at least {least}")


def check_sigma(sigma: object) -> None:
    """Refuse what is not a noise level."""
    number = isinstance(sigma, (int, float)) and not isinstance(sigma, bool)
    check(number and 0 < sigma < float("inf"), "sigma", sigma, "a positive noise level in units of [0, 1] pixels")


def one_of(names) -> str:
    """The phrase that lists what would have been right."""
    return "one of " + ", ".join(map(str, names))


def pick(name: str, table: dict, what: str):
    """The entry of that name; refuse a name that is not in the table."""
    check(isinstance(name, str) and name in table, what, name, one_of(table))
    return table[name]


def read_parameters(namespace: dict, **types: type) -> None:
    """Check a notebook's parameters: papermill only warns of an unknown name and never looks at types.

    Args:
        namespace: the notebook's `globals()`, in its first code cell after the parameters.
        types: the type of each parameter that the notebook has; int passes for float.

    Raises:
        ConfigError: a plain value under another name, a missing parameter or one of another type.
    """
    ipython = {"In", "Out", "exit", "quit", "get_ipython", "open"}
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    given = {k: v for k, v in namespace.items() if not k.startswith("_") and k not in ipython and isinstance(v, plain)}
    for name, value in given.items():
        check(name in types, "parameter", name, one_of(types))
        want = (int, float) if types[name] is float else types[name]
        right = isinstance(value, want) and (types[name] is bool or not isinstance(value, bool))
        check(right, name, value, f"a {types[name].__name__}")
    for name in types:
        check(name in given, "parameters", sorted(given), f"{name} among them")
