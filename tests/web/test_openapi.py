"""The description in /openapi.json is true: asked as it says and as it forbids, the service keeps to it.

pytestmark = pytest.mark.slow

A few examples here; many against a real process with: python benchmarks/fuzz.py
"""

import pytest

pytest.importorskip("schemathesis", reason="checking the description needs schemathesis")
pytest.importorskip("fastapi", reason="ucdir serve needs the extra 'serve'")
pytest.importorskip("prometheus_client", reason="ucdir serve needs the extra 'serve'")
pytest.importorskip("python_multipart", reason="ucdir serve needs the extra 'serve'")
pytest.importorskip("httpx2", reason="the test client needs httpx2")

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.generation import GenerationMode

from ucdir.gallery.folder import Gallery
from ucdir.model.runtime import load_query_encoder
from ucdir.web.app import create_app
from ucdir.web.galleries import Served
from ucdir.web.request_limits import Limits
from ucdir.web.security import Rules
from ucdir.web.service import build_service

load_all_checks()
TOKEN = "s3cret"
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def described(encoder_folder, galleries):
    """The description of a service that asks for a token, ready to be called."""
    encoder = load_query_encoder(encoder_folder, "cpu", "float32", "torch")
    served = [Served(folder.name, Gallery.load(folder)) for folder in galleries]
    limits = Limits(max_bytes=1_000_000, max_pixels=1_000_000)
    service = build_service(served, {encoder.fingerprint: encoder}, limits, Rules(TOKEN))
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(service), headers={"Authorization": f"Bearer {TOKEN}"})
    service.close()


ROUTES = {
    ("GET", "/health"),
    ("GET", "/galleries"),
    ("POST", "/search"),
    ("GET", "/images/{id}"),
    ("GET", "/images/{id}/thumbnail"),
    ("GET", "/metrics"),
}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name)
@pytest.mark.parametrize(("method", "path"), sorted(ROUTES))
def test_what_is_described_is_what_is_answered(described, method, path, mode):
    operation = described[path][method]
    if mode is GenerationMode.NEGATIVE and path in ("/health", "/galleries", "/metrics"):
        pytest.skip("nothing can be asked wrongly")
    left_out = [CHECKS.get_one("positive_data_acceptance")]  # random bytes are no image
    if path == "/search":  # an empty list of values, say, is no field at all in a form
        left_out.append(CHECKS.get_one("negative_data_rejection"))

    @EXAMPLES
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=left_out)

    ask()


def test_every_route_of_the_contract_is_described(described):
    paths = described.raw_schema["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == ROUTES
    assert set(paths["/search"]["post"]["responses"]) == {
        "200",
        *("400", "401", "403", "404", "408", "413", "415", "421", "422", "503"),
    }
