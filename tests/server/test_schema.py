"""Every route against its own description: what it is sent follows it or breaks it, what it answers conforms."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from callreel.measure.harness import ServerProcess

EXAMPLES = 3  # a route; it is for what hand-written tests do not think of, a little in every run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_route_answers_as_it_says(guarded: ServerProcess, client_keys: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{guarded.port}"
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    headers = {"Authorization": f"Bearer {client_keys['ann']}"}
    n, wrong = 0, []
    for found in schema.get_all_operations():
        operation = found.ok()
        sent = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=sent)
        def ask(case: Case) -> None:
            case.call_and_validate(
                headers=headers,
                checks=[not_a_server_error, response_schema_conformance, content_type_conformance],
            )

        try:
            ask()
        except (Exception, FailureGroup) as error:
            wrong.append(f"{operation.label}: {error!r}: {getattr(error, 'exceptions', '')}")
        n += 1
    assert n > 30 and wrong == []
