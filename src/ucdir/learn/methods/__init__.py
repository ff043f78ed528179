"""The methods that learn by gradient: one objective each, with its settings, over the same loop."""

from ucdir.errors import UsageError
from ucdir.learn.objective import Objective
from ucdir.settings import Settings, method_class


def build_objective(settings: Settings, num_domains: int) -> Objective:
    """The objective of the method that the settings name, ours or one from outside, for S domains."""
    name = settings.method.name
    found = method_class(name)
    if not (isinstance(found, type) and issubclass(found, Objective)):
        raise UsageError(f"method '{name}' is not a subclass of ucdir.learn.objective.Objective. Derive it from that class.")
    return found.build(settings, num_domains)
