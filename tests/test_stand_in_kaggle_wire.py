"""What the Kaggle on loopback speaks is what the installed client speaks: it cannot drift from it unseen."""

import importlib
import inspect
import re

import pytest
from kagglesdk.kaggle_object import FieldMetadata, KaggleObject, ListSerializer
from stand_in_kaggle.messages import ENUMS, MESSAGES, RPCS
from stand_in_kaggle.wire import Request, UnknownField, message

SDK = [
    importlib.import_module(f"kagglesdk.{name}")
    for name in (
        "security.types.oauth_service",
        "blobs.types.blob_api_service",
        "datasets.types.dataset_api_service",
        "datasets.types.dataset_enums",
        "kernels.types.kernels_api_service",
        "kernels.types.kernels_enums",
    )
]
SERVICES = {
    "security.OAuthService": ("security.services.oauth_service", "OAuthClient"),
    "blobs.BlobApiService": ("blobs.services.blob_api_service", "BlobApiClient"),
    "datasets.DatasetApiService": ("datasets.services.dataset_api_service", "DatasetApiClient"),
    "kernels.KernelsApiService": ("kernels.services.kernels_api_service", "KernelsApiClient"),
}


def sdk_class(name: str) -> type:
    return next(getattr(module, name) for module in SDK if hasattr(module, name))


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_only_fields_of_the_clients_message(name: str) -> None:
    fields: dict[str, FieldMetadata] = {field.json_name: field for field in sdk_class(name)._fields}
    for spoken, kind in MESSAGES[name].items():
        assert spoken in fields
        listed = isinstance(fields[spoken].serializer, ListSerializer)
        assert kind == (
            f"[{fields[spoken].field_type.__name__}]" if listed else fields[spoken].field_type.__name__
        )


@pytest.mark.parametrize("name", ENUMS)
def test_a_state_is_one_of_the_clients(name: str) -> None:
    assert set(ENUMS[name]) <= set(sdk_class(name).__members__)


@pytest.mark.parametrize("method", RPCS)
def test_an_rpc_is_one_of_the_clients(method: str) -> None:
    service, message_in, message_out = RPCS[method]
    module, client_class = SERVICES[service]
    call = getattr(
        getattr(importlib.import_module(f"kagglesdk.{module}"), client_class),
        re.sub(r"(?<!^)(?=[A-Z])", "_", method).lower(),
    )
    signature = inspect.signature(call)
    assert signature.parameters["request"].annotation.__name__ == message_in
    assert f'"{service}", "{method}"' in inspect.getsource(call)
    assert message_out in (None, signature.return_annotation.__name__)


def test_what_the_client_writes_and_what_it_reads_is_the_same_message() -> None:
    sent = message("ApiSaveKernelResponse", ref="/code/a/b", versionNumber=3, invalidTags=["x"], error="")
    assert KaggleObject.to_dict(sdk_class("ApiSaveKernelResponse").from_dict(sent)) == sent


def test_a_field_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(UnknownField, match="priority"):
        Request("ApiSaveKernelRequest", {"priority": 1})
    with pytest.raises(UnknownField, match="HIBERNATING"):
        message("ApiGetKernelSessionStatusResponse", status="HIBERNATING")
