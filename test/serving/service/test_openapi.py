import re

from serving.service import openapi


def test_every_reference_is_there():
    description = openapi.describe(["albert"], "/metrics")
    named = set(re.findall(r"#/components/schemas/(\w+)", str(description)))
    assert named == set(description["components"]["schemas"])


def test_paths():
    assert sorted(openapi.describe(["albert"], "/metrics")["paths"]) == [
        "/healthz", "/metrics", "/readyz", "/v1/models/albert",
        "/v1/models/albert/metadata",
        "/v1/models/albert/versions/{version}", "/v1/models/albert/versions/{version}/metadata",
        "/v1/models/albert/versions/{version}:classify", "/v1/models/albert/versions/{version}:predict",
        "/v1/models/albert/versions/{version}:regress", "/v1/models/albert/versions/{version}:tag",
        "/v1/models/albert:classify", "/v1/models/albert:predict", "/v1/models/albert:regress",
        "/v1/models/albert:tag"]
