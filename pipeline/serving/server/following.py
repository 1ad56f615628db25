"""Which version is served: the champion as the registry names it, or one that stays."""

import asyncio
import sys
from dataclasses import dataclass

from pipeline.project.errors import UsageError, one_line
from pipeline.serving import lookup, models, pulled
from pipeline.serving.server.metrics import Metrics


@dataclass(frozen=True)
class Served:
    """A version that is loaded: `model` scores, `columns` are the names of what it says of a text."""

    name: str
    version: str
    model: models.LightModel
    columns: tuple[str, ...]


class Following:
    """Holds the version that is served now, and looks for another.

    Attributes:
        uri: what is followed, or was found at the start.
        served: what to score with; it is whole at all times.
    """

    def __init__(self, uri: str | None, metrics: Metrics, *, pinned: bool, poll_s: float) -> None:
        """Loads the model that `uri` names, by default the champion; unless it is `pinned`, another that it names later
        is found within `poll_s` seconds.

        Raises:
            UsageError, PipelineError: as in `models.load`; or the model is not one of ours.
        """
        self.uri = uri or models.champion_uri()
        self._metrics = metrics
        self._poll_s = poll_s
        self._told = ""
        named = lookup.NAMED.fullmatch(self.uri)
        self.follows = named is not None and named["alias"] is not None and not pinned
        self.served = self._first(uri)
        metrics.serves(self.served.version)

    def _first(self, uri: str | None) -> Served:
        named = lookup.NAMED.fullmatch(self.uri)
        if named is None:
            return _served("model", "unnumbered", models.load_light(uri))
        try:
            version = lookup.find(self.uri)
        except lookup.NoAnswer:  # `load_light` knows the version that was named last
            model = models.load_light(uri)
            return _served(named["name"], pulled.last_named(self.uri) or "unknown", model)
        self._metrics.registry_reachable.set(1)
        self._metrics.champion_served.set(1)
        return self._found(version)

    def _found(self, version: lookup.Version) -> Served:
        return _served(version.name, version.number, models.load_light(self.uri, version))

    async def follow(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(self._poll_s)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Serves the version that the registry names now. Where it cannot be asked, or the version not be loaded, what
        is served stays, and metrics and stderr say so."""
        try:
            version = lookup.find(self.uri)
        except UsageError as error:
            self._metrics.registry_reachable.set(1)
            self._metrics.champion_served.set(0)
            self._tell(str(error))
            return
        except Exception as error:  # whatever it is, what is served stays
            self._metrics.registry_reachable.set(0)
            self._tell(f"the registry cannot be asked: {one_line(error)}")
            return
        self._metrics.registry_reachable.set(1)
        if version.number != self.served.version:
            try:
                self.served = self._found(version)
            except Exception as error:
                self._metrics.champion_served.set(0)
                self._tell(f"version {version.number} cannot be served: {one_line(error)}")
                return
            self._metrics.serves(version.number)
            print(f"serving version {version.number} now", flush=True)
        self._metrics.champion_served.set(1)
        self._told = ""

    def _tell(self, sentence: str) -> None:
        if sentence != self._told:  # not at every look
            print(f"warning: {sentence}; version {self.served.version} is served on", file=sys.stderr, flush=True)
        self._told = sentence


def _served(name: str, version: str, model: models.LightModel) -> Served:
    return Served(name, version, model, models.columns(model))
