"""Everything about schemas: wire format, codec, registry client and service, compatibility."""
