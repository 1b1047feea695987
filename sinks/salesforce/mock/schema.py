"""The objects of the stand-in org and their fields, described as Salesforce's describe resource does.

Shapes: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_sobject_describe.htm
"""

from __future__ import annotations

from typing import Any, Literal

from trunkline.core.settings import Settings, setting

FieldType = Literal[
    "id",
    "string",
    "textarea",
    "email",
    "phone",
    "url",
    "picklist",
    "multipicklist",
    "boolean",
    "int",
    "double",
    "currency",
    "percent",
    "date",
    "datetime",
    "time",
    "reference",
    "base64",
]

TEXT_TYPES = frozenset(
    {"id", "string", "textarea", "email", "phone", "url", "picklist", "multipicklist", "reference", "base64"}
)
NUMBER_TYPES = frozenset({"int", "double", "currency", "percent"})


class FieldSpec(Settings):
    """One field of an object."""

    type: FieldType = setting("string", description="Salesforce's type of the field.")
    length: int = setting(255, description="Most characters of a text field.")
    required: bool = setting(False, description="Whether a new record must have a value.")
    external_id: bool = setting(False, description="Whether records can be found by it; implies unique.")
    case_sensitive: bool = setting(False, description="Whether unique values differ by case.")
    reference_to: str | None = setting(None, description="The object that a reference points at.")
    relationship: str | None = setting(None, description="The name under which the referenced record is reached.")
    read_only: bool = setting(False, description="Whether Salesforce alone sets it.")


class ObjectSpec(Settings):
    """One object of the org: its fields by name. `Id`, `CreatedDate` and the like are added."""

    fields: dict[str, FieldSpec] = setting(description="The fields by API name.")
    prefix: str | None = setting(None, description="The first three characters of its record ids.")


def _text(length: int = 255, **more: Any) -> FieldSpec:
    return FieldSpec(length=length, **more)


def _of(kind: FieldType, **more: Any) -> FieldSpec:
    return FieldSpec(type=kind, **more)


SYSTEM_FIELDS: dict[str, FieldSpec] = {
    "Id": _of("id", length=18, read_only=True),
    "IsDeleted": _of("boolean", read_only=True),
    "CreatedDate": _of("datetime", read_only=True),
    "LastModifiedDate": _of("datetime", read_only=True),
    "SystemModstamp": _of("datetime", read_only=True),
}

_CORRELATED: dict[str, FieldSpec] = {"ExtId__c": _text(80, external_id=True), "Correlation_Id__c": _text()}
_TO_ACCOUNT = {"length": 18, "reference_to": "Account"}

DEFAULT_OBJECTS: dict[str, ObjectSpec] = {
    "Account": ObjectSpec(
        prefix="001",
        fields={
            "Name": _text(required=True),
            "AccountNumber": _text(40),
            "Phone": _of("phone", length=40),
            "Website": _of("url"),
            "Industry": _of("picklist"),
            "NumberOfEmployees": _of("int"),
            "AnnualRevenue": _of("currency"),
            "BillingCity": _text(40),
            "Description": _of("textarea", length=32000),
            **_CORRELATED,
        },
    ),
    "Contact": ObjectSpec(
        prefix="003",
        fields={
            "LastName": _text(80, required=True),
            "FirstName": _text(40),
            "Email": _of("email", length=80),
            "Phone": _of("phone", length=40),
            "Birthdate": _of("date"),
            "AccountId": _of("reference", relationship="Account", **_TO_ACCOUNT),
            **_CORRELATED,
        },
    ),
    "Lead": ObjectSpec(
        prefix="00Q",
        fields={
            "LastName": _text(80, required=True),
            "FirstName": _text(40),
            "Company": _text(required=True),
            "Email": _of("email", length=80),
            "Status": _of("picklist"),
            **_CORRELATED,
        },
    ),
    "Flight__c": ObjectSpec(
        prefix="a00",
        fields={
            "Name": _text(80),
            "Flight_Key__c": _text(80, external_id=True, required=True),
            "Carrier__c": _text(10),
            "Flight_Number__c": _of("double"),
            "Tail_Number__c": _text(10),
            "Origin__c": _text(3),
            "Destination__c": _text(3),
            "Departure_Delay__c": _of("double"),
            "Arrival_Delay__c": _of("double"),
            "Minutes_Late__c": _of("double"),
            "Distance__c": _of("double"),
            "Flight_Date__c": _of("date"),
            "Scheduled_Departure__c": _of("datetime"),
            "Cancelled__c": _of("boolean"),
            "Severity__c": _of("picklist"),
            "Operator__c": _of("reference", relationship="Operator__r", **_TO_ACCOUNT),
            "Correlation_Id__c": _text(),
        },
    ),
}


def all_fields(spec: ObjectSpec) -> dict[str, FieldSpec]:
    """The fields of an object with those that Salesforce adds to every one."""
    return {**SYSTEM_FIELDS, **spec.fields}


def describe_object(name: str, spec: ObjectSpec, version: str, *, brief: bool = False) -> dict[str, Any]:
    """The describe answer of one object; `brief` leaves out the fields, as the list of objects does."""
    base = f"/services/data/v{version}/sobjects/{name}"
    answer: dict[str, Any] = {
        "name": name,
        "label": name.removesuffix("__c").replace("_", " "),
        "keyPrefix": spec.prefix,
        "custom": name.endswith("__c"),
        "createable": True,
        "updateable": True,
        "deletable": True,
        "queryable": True,
        "urls": {"sobject": base, "describe": f"{base}/describe", "rowTemplate": f"{base}/{{ID}}"},
    }
    if not brief:
        answer["fields"] = [_describe_field(name, field) for name, field in all_fields(spec).items()]
    return answer


def _describe_field(name: str, field: FieldSpec) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.removesuffix("__c").replace("_", " "),
        "type": field.type,
        "length": field.length if field.type in TEXT_TYPES else 0,
        "precision": 18 if field.type in NUMBER_TYPES - {"int"} else 0,
        "nillable": not field.required,
        "defaultedOnCreate": field.read_only or field.type == "boolean",
        "createable": not field.read_only,
        "updateable": not field.read_only,
        "externalId": field.external_id,
        "idLookup": field.external_id or field.type == "id",
        "unique": field.external_id,
        "caseSensitive": field.case_sensitive,
        "custom": name.endswith("__c"),
        "referenceTo": [field.reference_to] if field.reference_to else [],
        "relationshipName": field.relationship,
    }
