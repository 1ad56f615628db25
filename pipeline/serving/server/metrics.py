"""What Prometheus reads at `/metrics`."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_CHARACTERS = (50, 100, 200, 400, 800, 1600, 3200, 6400, 12800)
_PROBABILITY = tuple(tenth / 10 for tenth in range(1, 10))


class Metrics:
    """The counters of one server; docs/serving.md lists them."""

    def __init__(self) -> None:
        disable_created_metrics()  # a gauge more for each series, which nothing here reads
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("sentiment_requests", "Requests answered.", ("route", "status"), registry=registry)
        self.seconds = Histogram(
            "sentiment_request_seconds",
            "From the headers of a request that is scored to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.queued = Histogram(
            "sentiment_queue_seconds", "Before a request's first text is scored.", buckets=_SECONDS, registry=registry
        )
        self.batch_rows = Histogram("sentiment_batch_rows", "Texts scored together.", buckets=_ROWS, registry=registry)
        self.rows = Counter("sentiment_rows", "Texts scored.", ("version",), registry=registry)
        self.probability = Histogram(
            "sentiment_probability",
            "Of positive, of the texts scored.",
            ("version",),
            buckets=_PROBABILITY,
            registry=registry,
        )
        self.characters = Histogram(
            "sentiment_text_characters",
            "Lengths of the texts scored.",
            ("version",),
            buckets=_CHARACTERS,
            registry=registry,
        )
        self.version = Gauge("sentiment_version", "1 for the version that is served.", ("version",), registry=registry)
        self.registry_reachable = Gauge(
            "sentiment_registry_reachable", "Whether the registry answered when it was asked last.", registry=registry
        )
        self.champion_served = Gauge(
            "sentiment_champion_served",
            "Whether the version that the registry names is the one served.",
            registry=registry,
        )

    def serves(self, version: str) -> None:
        """Notes that from now on `version` is served."""
        self.version.clear()
        self.version.labels(version).set(1)

    def scored(self, version: str, texts: Sequence[str], probability: Sequence[float]) -> None:
        """Counts texts that a version has scored."""
        self.rows.labels(version).inc(len(texts))
        by_probability, by_length = self.probability.labels(version), self.characters.labels(version)
        for text, one in zip(texts, probability, strict=True):
            by_probability.observe(one)
            by_length.observe(len(text))

    def text(self) -> bytes:
        """Returns all of them in Prometheus's text format."""
        return generate_latest(self._registry)
