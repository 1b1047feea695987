"""From manifests to runtimes: plug-ins made, schemas registered, routes and steps compiled, codecs chosen."""
