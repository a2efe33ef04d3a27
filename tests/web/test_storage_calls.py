"""What ``on_storage_call`` hears of a request's calls, and the recipes of the guide that use it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp_session
import prometheus_client
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from opentelemetry import trace
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pytest_aiohttp import AiohttpClient

from aiosess import (
    MemoryStorage,
    OptionsError,
    Outcome,
    SessionOptions,
    Storage,
    StorageCall,
    StorageUnavailable,
    setup,
)
from aiosess.exchange.manager import lane_of
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET, MakeApp
from tests.servers import RedisServer
from tests.web.conftest import Connect
from tests.web.handlers import keep, show, signed, views

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "observability.md"


# One storage is as good as another there.
in_memory = pytest.mark.parametrize("storage", ["memory"], indirect=True)


@pytest.fixture
def told() -> list[StorageCall]:
    return []


def verbs(told: list[StorageCall]) -> list[tuple[str, Outcome]]:
    return [(each.operation, each.outcome) for each in told]


async def test_the_calls_of_a_request_are_told_in_their_order(
    connect: Connect, storage: Storage, told: list[StorageCall]
) -> None:
    await keep(storage, "apple")
    client = await connect(views, on_storage_call=told.append, forgets=True, touch_after=0)

    await client.get("/views", headers=signed("apple"))

    assert verbs(told) == [("load", Outcome.DONE), ("replace", Outcome.DONE)]
    assert all(each.seconds >= 0 for each in told)


@in_memory
async def test_a_read_that_touches_in_one_command_is_one_call(
    connect: Connect, redis_server: RedisServer, told: list[StorageCall]
) -> None:
    async with RedisStorage.from_url(redis_server.url, prefix=f"{uuid.uuid4()}:") as storage:
        await keep(storage, "apple")
        client = await connect(
            show, storage=storage, on_storage_call=told.append, forgets=True, touch_after=0
        )

        await client.get("/show", headers=signed("apple"))

    assert verbs(told) == [("load", Outcome.DONE)]
    assert told[0].node == f"127.0.0.1:{redis_server.port}"


@in_memory
async def test_each_try_of_a_request_is_told(
    connect: Connect, faulty: FaultyStorage, told: list[StorageCall]
) -> None:
    client = await connect(
        show, storage=faulty, retries=2, on_storage_call=told.append, forgets=True
    )
    faulty.fail(StorageUnavailable("away"))

    await client.get("/show", headers=signed("apple"))

    assert verbs(told) == [("load", Outcome.UNAVAILABLE)] * 3


@in_memory
async def test_what_it_raises_is_no_fault_of_the_request(connect: Connect) -> None:
    def fail(call: StorageCall) -> None:
        raise ZeroDivisionError(call.operation)

    client = await connect(views, on_storage_call=fail)

    counts = [await (await client.get("/views")).json() for _ in range(2)]

    assert counts == [1, 2]


@in_memory
async def test_the_calls_of_a_storage_made_for_aiohttp_session_are_told(
    connect: Connect, told: list[StorageCall]
) -> None:
    client = await connect(
        views,
        secret=None,
        storage=aiohttp_session.SimpleCookieStorage(),
        on_storage_call=told.append,
    )

    await client.get("/views")

    assert [(each.operation, each.node) for each in told] == [
        ("load", "SimpleCookieStorage"),
        ("save", "SimpleCookieStorage"),
    ]


@pytest.mark.one_lane("it is about which one is chosen")
def test_requests_keep_the_fast_lane() -> None:
    heard = SessionOptions(secret=SECRET, on_storage_call=print)

    assert lane_of(heard, is_told=True) is lane_of(SessionOptions(secret=SECRET), is_told=True)


@pytest.mark.one_lane("nothing is served")
def test_what_cannot_be_called_is_refused() -> None:
    given: Any = "a function"

    with pytest.raises(OptionsError, match="on_storage_call='a function' is not callable"):
        SessionOptions(secret=SECRET, on_storage_call=given)


# The recipes.


def recipe(name: str, heading: str) -> Any:
    """Return what is called *name* in the code below *heading* of the guide."""
    part = GUIDE.read_text().partition(f"## {heading}\n")[2]
    [code] = re.findall(
        r"^```python\n(.*?)^```", part.partition("\n## ")[0], re.DOTALL | re.MULTILINE
    )
    namespace: dict[str, Any] = {"MemoryStorage": MemoryStorage, "SessionOptions": SessionOptions}
    namespace["StorageCall"] = StorageCall
    exec(code, namespace)  # noqa: S102 - it is our own
    return namespace[name]


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield provider
    provider.shutdown()


@pytest.fixture
def add_span(provider: TracerProvider, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return recipe("add_span", "OpenTelemetry")


@in_memory
async def test_the_spans_are_children_of_the_requests(
    make_app: MakeApp,
    aiohttp_client: AiohttpClient,
    provider: TracerProvider,
    spans: InMemorySpanExporter,
    add_span: Any,
) -> None:
    @web.middleware
    async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
        with provider.get_tracer("server").start_as_current_span("request"):
            return await handler(request)

    app = make_app(views, on_storage_call=add_span)
    app.middlewares.insert(0, traced)
    client = await aiohttp_client(app)

    await client.get("/views")

    create, request = spans.get_finished_spans()
    assert create.name == "session create"
    assert create.parent is not None
    assert create.parent == request.context
    assert create.attributes is not None
    assert create.attributes["session.outcome"] == "done"


@pytest.mark.one_lane("no request is served")
@pytest.mark.parametrize("outcome", Outcome)
def test_a_span_says_whether_there_was_trouble(
    spans: InMemorySpanExporter, add_span: Any, outcome: Outcome
) -> None:
    add_span(StorageCall("load", "cache:6379", 0.25, outcome))

    [span] = spans.get_finished_spans()
    is_trouble = outcome.name in {"UNAVAILABLE", "REFUSED", "GIVEN_UP", "FAILED"}
    assert (span.status.status_code is trace.StatusCode.ERROR) == is_trouble
    assert seconds_of(span) == pytest.approx(0.25)


def seconds_of(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


@in_memory
async def test_the_histogram_counts_by_verb_node_and_outcome(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = prometheus_client.CollectorRegistry()
    histogram = partial(prometheus_client.Histogram, registry=registry)
    monkeypatch.setattr(prometheus_client, "Histogram", histogram)
    measure = recipe("measure", "Prometheus")
    client = await connect(views, storage=MemoryStorage(), on_storage_call=measure)

    for _ in range(3):
        await client.get("/views")

    count = partial(registry.get_sample_value, "session_storage_seconds_count")
    assert [
        count({"operation": verb, "node": "MemoryStorage", "outcome": "done"})
        for verb in ("create", "load", "replace")
    ] == [1, 2, 2]


@pytest.fixture
def instrumented(provider: TracerProvider) -> Iterator[None]:
    instrumentor = RedisInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield
    instrumentor.uninstrument()


@pytest.mark.parametrize("multiplex", [True, False])
async def test_opentelemetrys_own_instrumentation_sees_commands_only_without_multiplex(
    redis_server: RedisServer,
    aiohttp_client: AiohttpClient,
    spans: InMemorySpanExporter,
    instrumented: None,
    *,
    multiplex: bool,
) -> None:
    app = web.Application()
    prefix = f"{uuid.uuid4()}:"
    storage = RedisStorage.from_url(redis_server.url, prefix=prefix, multiplex=multiplex)
    setup(app, SessionOptions(secret=SECRET, storage=storage))
    app.router.add_get("/views", views)
    client = await aiohttp_client(app)

    await client.get("/views")

    assert ("SET" in [span.name for span in spans.get_finished_spans()]) is not multiplex
