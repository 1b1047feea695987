"""The configuration files of the embedded broker: `server.properties`, `log4j2.properties` and the JVM's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.bus.embedded.names import JvmNames
from trunkline.bus.embedded.options import INTERNAL_USER, OWN_USER, REAUTHENTICATION_MS, EmbeddedOptions
from trunkline.bus.embedded.processes import marker

HOST = "127.0.0.1"
NODE_ID = 1
REAUTHENTICATION = "listener.name.client.scram-sha-512.connections.max.reauth.ms"
"""Of SCRAM only: our own clients, whose password nobody takes away, would sign in anew all the time for nothing."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ports:
    """The broker's listeners on the loopback address; `internal` is its talk with itself where clients are secured."""

    client: int
    controller: int
    internal: int


def _base() -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        # One node: every topic has one replica.
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # Few partitions of the internal topics: each is a log to open at start.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "1",
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        # `message.max.bytes` stays Kafka's 1 MiB, the default of each topic. A topic's own `max.message.bytes` may exceed it,
        # as dead-letter topics do (a dead letter is its input plus what happened), up to this size of a whole request.
        "socket.request.max.bytes": str(100 * _MIB),
        # Small: one machine, a few thousand partitions at most.
        "log.index.size.max.bytes": str(_MIB),
        "log.cleaner.enable": "true",
        "log.cleaner.threads": "1",
        "log.cleaner.dedupe.buffer.size": str(16 * _MIB),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.recovery.threads.per.data.dir": "2",
        "background.threads": "2",
        "num.replica.fetchers": "1",
        "group.coordinator.threads": "1",
        # A worker that joins or dies is noticed in seconds. The defaults are 5 s and 45 s (KIP-848), 3 s and 6 s (classic).
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "group.consumer.min.heartbeat.interval.ms": "500",
        "group.consumer.heartbeat.interval.ms": "2000",
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "6000",
        "group.share.min.heartbeat.interval.ms": "500",
        "group.share.heartbeat.interval.ms": "1000",
        # A single node has nobody to hand its partitions to: a pause of the JVM, however long, must not fence it (registration.py).
        "broker.session.timeout.ms": "3600000",
        "controller.quorum.election.timeout.ms": "300",
        "controller.quorum.fetch.timeout.ms": "1000",
        "broker.heartbeat.interval.ms": "500",
        "initial.broker.registration.timeout.ms": "60000",
        "unclean.leader.election.enable": "false",
    }


@dataclass(frozen=True, slots=True)
class Passwords:
    """What the broker knows users by, beside SCRAM credentials: `internal` its own talk, `own` our clients (None: they have none)."""

    internal: str = field(repr=False)
    own: str | None = field(repr=False)


def server_properties(options: EmbeddedOptions, ports: Ports, names: JvmNames, passwords: Passwords) -> dict[str, str]:
    """All properties of the broker, ours first and the caller's overrides last."""
    config = _base()
    config |= {"log.dirs": names.in_kafka("data"), "controller.quorum.voters": f"{NODE_ID}@{HOST}:{ports.controller}"}
    config |= {"controller.listener.names": "CONTROLLER"}
    config |= _secured(options, ports, names, passwords) if options.secured else _plain(ports)
    return config | dict(options.overrides)


_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


def _plain(ports: Ports) -> dict[str, str]:
    return {
        "listeners": f"CLIENT://{HOST}:{ports.client},CONTROLLER://{HOST}:{ports.controller}",
        "advertised.listeners": f"CLIENT://{HOST}:{ports.client}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
    }


def _secured(options: EmbeddedOptions, ports: Ports, names: JvmNames, passwords: Passwords) -> dict[str, str]:
    """Clients come through a listener of their own; the broker reaches itself and its controller by a random password.

    Without that password any process of this machine could change ACLs and users at the controller.
    """
    own_talk = f'{_PLAIN} username="{INTERNAL_USER}" password="{passwords.internal}" user_{INTERNAL_USER}="{passwords.internal}";'
    config = {
        "listeners": f"CLIENT://{HOST}:{ports.client},INTERNAL://{HOST}:{ports.internal},CONTROLLER://{HOST}:{ports.controller}",
        "advertised.listeners": f"CLIENT://{HOST}:{ports.client},INTERNAL://{HOST}:{ports.internal}",
        "listener.security.protocol.map": (
            f"CLIENT:{options.client_protocol},INTERNAL:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT"
        ),
        "inter.broker.listener.name": "INTERNAL",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.internal.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.internal.plain.sasl.jaas.config": own_talk,
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": own_talk,
    }
    if not options.open:
        config |= _signed_in(options, passwords)
    if options.tls:
        config |= {
            "listener.name.client.ssl.keystore.type": "PEM",
            "listener.name.client.ssl.keystore.location": names.in_kafka("tls/server.pem"),
            "listener.name.client.ssl.client.auth": "none",
        }
    return config


def _signed_in(options: EmbeddedOptions, passwords: Passwords) -> dict[str, str]:
    """How clients sign in, and that nothing is allowed to them without an ACL, except to our own."""
    mechanisms = ["SCRAM-SHA-512"]
    config = {
        "listener.name.client.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        REAUTHENTICATION: str(REAUTHENTICATION_MS),
    }
    if passwords.own is not None:
        mechanisms.append("PLAIN")
        config["listener.name.client.plain.sasl.jaas.config"] = f'{_PLAIN} user_{OWN_USER}="{passwords.own}";'
    administrator = OWN_USER if options.scram is None else options.scram.username
    return config | {
        "listener.name.client.sasl.enabled.mechanisms": ",".join(mechanisms),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{INTERNAL_USER};User:{administrator}",
        "allow.everyone.if.no.acl.found": "false",
    }


def render_properties(properties: Mapping[str, str]) -> str:
    """A `.properties` file, with what Java's reader would take for syntax escaped (java.util.Properties)."""
    return "".join(f"{name}={_escape(value)}\n" for name, value in sorted(properties.items()))


def _escape(value: str) -> str:
    value = value.replace("\\", "\\\\")
    value = "".join(sign if " " <= sign <= "~" else f"\\u{ord(sign):04x}" for sign in value)
    return "\\" + value if value.startswith((" ", "#", "!")) else value


def logging_properties(log_file: str) -> str:
    """log4j2: warnings of everything and Kafka's own information, in one file that rolls at 20 MB."""
    return render_properties(
        {
            "status": "error",
            "appender.file.type": "RollingFile",
            "appender.file.name": "file",
            "appender.file.fileName": log_file,
            "appender.file.filePattern": f"{log_file}.%i",
            "appender.file.layout.type": "PatternLayout",
            "appender.file.layout.pattern": "%d{ISO8601} %-5p %c{1} %m%n",
            "appender.file.policies.type": "Policies",
            "appender.file.policies.size.type": "SizeBasedTriggeringPolicy",
            "appender.file.policies.size.size": "20MB",
            "appender.file.strategy.type": "DefaultRolloverStrategy",
            "appender.file.strategy.max": "2",
            "rootLogger.level": "warn",
            "rootLogger.appenderRef.file.ref": "file",
            "logger.kafka.name": "kafka",
            "logger.kafka.level": "info",
            "logger.apache.name": "org.apache.kafka",
            "logger.apache.level": "info",
            "logger.config.name": "org.apache.kafka.common.config",
            "logger.config.level": "warn",
        }
    )


def jvm_arguments(heap: str, class_path: list[str], names: JvmNames) -> str:
    """The content of the `@argfile` of the `java` launcher: all but what shows in a process listing."""
    arguments = [
        f"-Xmx{heap}",
        "-Xms128m",
        # What the second compiler gains takes it minutes of a core to earn, and a small machine has no core to spare for that.
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={names.in_kafka('log4j2.properties')}",
        "-Dlog4j2.disable.jmx=true",
        "-cp",
        ":".join(class_path),
    ]
    return "".join('"{}"\n'.format(argument.replace("\\", "\\\\").replace('"', '\\"')) for argument in arguments)


def command(java: Path, home: Path, names: JvmNames, *main: str) -> list[str]:
    """The command line of a JVM of ours: short, without a secret, and recognisable. Its working directory is the folder `kafka`."""
    return [str(java), marker(home), f"@{names.in_kafka('java.args')}", *main]
