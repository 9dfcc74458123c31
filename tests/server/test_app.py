"""One shape for every error, and what a stranger sees first."""

from __future__ import annotations

import httpx
import pytest

from callreel.transcripts.formats import FORMATS


def error_of(answer: httpx.Response) -> dict[str, object]:
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message", "hint", "detail"}
    error: dict[str, object] = body["error"]
    assert error["hint"], error
    return error


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/jobs/none", 404, "not_found"),
        ("GET", "/v1/calls/none", 404, "not_found"),
        ("GET", "/v1/calls/none/events", 404, "not_found"),
        ("DELETE", "/v1/jobs", 405, "invalid_input"),
        ("POST", "/v1/jobs", 400, "invalid_input"),
        ("GET", "/v1/jobs?limit=0", 400, "invalid_input"),
        ("GET", "/v1/jobs?limit=1001", 400, "invalid_input"),
        ("GET", "/v1/jobs?state=asleep", 400, "invalid_input"),
        ("GET", "/v1/calls?cursor=%00", 400, "invalid_input"),
        ("GET", "/v1/calls/none/transcript?format=pdf", 400, "invalid_input"),
    ],
)
def test_every_refusal_has_the_one_shape(api: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    answer = api.request(method, path)
    assert answer.status_code == status
    assert error_of(answer)["code"] == code


def test_who_may_not_is_told_what_to_do(api: httpx.Client, ann: httpx.Client) -> None:
    assert "Bearer" in str(error_of(api.get("/v1/jobs", headers={"Authorization": "Bearer cr_wrong"}))["hint"])
    assert "admin" in str(error_of(ann.get("/v1/keys"))["hint"])


def test_a_method_that_is_not_there_names_those_that_are(api: httpx.Client) -> None:
    assert set(api.delete("/v1/jobs").headers["allow"].split(", ")) & {"GET", "POST"}


def test_a_validation_error_names_the_field(api: httpx.Client) -> None:
    error = error_of(api.post("/v1/jobs", files={"file": ("a", b"x")}, data={"task": "sing", "priority": "first"}))
    problems = error["detail"]["problems"]  # type: ignore[index]
    assert {problem["field"] for problem in problems} == {"task", "priority"}


def test_an_unknown_format_names_those_that_there_are(api: httpx.Client) -> None:
    error = error_of(api.get("/v1/calls/none/transcript", params={"format": "pdf"}))
    assert "pdf" in str(error["message"]) and error["hint"] == f"Formats: {', '.join(FORMATS)}"


@pytest.mark.parametrize("authorization", ["Bearer cr_wrong", "bearer x", "Bearer  " + "k" * 5000])
def test_a_wrong_key_is_refused_even_on_loopback(api: httpx.Client, authorization: str) -> None:
    answer = api.get("/v1/jobs", headers={"Authorization": authorization})
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert error_of(answer)["code"] == "unauthorized"


def test_docs_and_openapi_answer(api: httpx.Client) -> None:
    page = api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    described = api.get("/openapi.json").json()
    assert all(f"<code>{path}</code>" in page.text for path in described["paths"])
    assert "timestamp_granularities" in page.text and "max_line_chars" in page.text
    assert "<script" not in page.text and "http://" not in page.text and "https://" not in page.text
    assert set(api.get("/openapi.json").json()["paths"]) >= {"/v1/jobs", "/v1/calls/{call_id}/transcript"}


def test_the_description_says_what_refusals_look_like_and_where_the_key_goes(api: httpx.Client) -> None:
    described = api.get("/openapi.json").json()
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    shape = described["components"]["schemas"]["Error"]
    assert set(shape["properties"]) == set(error_of(api.get("/v1/jobs/none")))
    for methods in described["paths"].values():
        assert all("422" not in route["responses"] and "default" in route["responses"] for route in methods.values())


# -- what stands around every request


def test_a_request_has_an_id_its_own_if_it_is_sane(api: httpx.Client) -> None:
    assert api.get("/version", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert api.get("/version").headers["x-content-type-options"] == "nosniff"
    made = {
        api.get("/v1/none", headers={"X-Request-ID": sent}).headers["x-request-id"] for sent in ("", "a b", "x" * 129)
    }
    assert len(made) == 3 and all(len(id) == 36 for id in made)


def test_requests_are_counted_by_route_never_by_path(api: httpx.Client) -> None:
    for path in ("/v1/jobs/one", "/v1/jobs/two", "/v1/made-up"):
        api.get(path)
    api.request("PROPFIND", "/v1/jobs")
    lines = api.get("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("requests_total{")]
    assert any('method="GET",route="/v1/jobs/{job_id}",status="404"' in line for line in counted), counted
    assert any('method="GET",route="none",status="404"' in line for line in counted)
    assert any('method="other"' in line for line in counted)
    assert not any("made-up" in line or "/one" in line for line in lines)
    assert any(line.startswith("request_duration_seconds_bucket{") for line in lines)


def test_long_answers_are_compressed_and_short_ones_are_not(api: httpx.Client) -> None:
    assert api.get("/openapi.json").headers["content-encoding"] == "gzip"
    assert "content-encoding" not in api.get("/version").headers
    assert "content-encoding" not in api.get("/openapi.json", headers={"Accept-Encoding": "identity"}).headers


@pytest.mark.parametrize("path", ["/v1/audio/none", "/v1/models/none"])
def test_under_the_paths_of_openai_errors_have_its_shape(api: httpx.Client, path: str) -> None:
    answer = api.get(path, headers={"Authorization": "Bearer cr_wrong"})
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    refused = api.post(path, headers={"Authorization": "Bearer cr_wrong"})
    assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"


def test_a_long_body_that_is_no_form_is_refused_unread(api: httpx.Client) -> None:
    answer = api.post("/v1/jobs", content=bytes(2_000_000), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and error_of(answer)["code"] == "too_large"


def test_a_long_body_without_a_length_is_refused_alike(ann: httpx.Client) -> None:
    json = {"Content-Type": "application/json"}
    told = [
        ann.post("/v1/webhooks", content=sent, headers=json) for sent in (bytes(2_000_000), iter([bytes(2_000_000)]))
    ]
    assert [answer.status_code for answer in told] == [413, 413]
    assert error_of(told[0]) == error_of(told[1]) and error_of(told[0])["detail"] == {"limit_bytes": 1 << 20}
