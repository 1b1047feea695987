"""A local stand-in for a Salesforce org that speaks its OAuth2 and REST protocols."""

from sinks.salesforce.mock.server import MockSettings, SalesforceMock

__all__ = ["MockSettings", "SalesforceMock"]
