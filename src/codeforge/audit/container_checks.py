"""Container checks: each setting of a waiting sandbox's container, as the engine describes it.

A setting that no check here knows is a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from codeforge.audit.model import Check, Rule, Severity
from codeforge.audit.proc_facts import Facts
from codeforge.model import Language, MiB, SandboxLimits
from codeforge.policy import USER_IDS

# The formatter would put each path on its own line.
# fmt: off
MASKED = {
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/scsi",
    "/proc/timer_list", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap",
    "/proc/interrupts", "/proc/kallsyms", "/proc/config.gz", "/proc/cmdline", "/proc/partitions",
    "/proc/diskstats", "/proc/key-users", "/proc/locks", "/sys/kernel/slab", "/sys/fs/bpf", "/sys/class/dmi",
}
# fmt: on
READ_ONLY = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
ULIMITS = {"core": 0, "nofile": 1024, "msgqueue": 0, "sigpending": 128, "memlock": 65536}
PLACES = {"/code", "/tmp"}  # noqa: S108 - in a sandbox
MAX_SHM_BYTES = 16 * MiB
MAX_TMPFS_BYTES = 64 * MiB
MIN_OOM_SCORE = 900
SECRET_WORDS = ("SECRET", "TOKEN", "PASSW", "KEY", "CREDENTIAL", "CANARY", "PROXY")

Answer: TypeAlias = tuple[bool, object]


class Container:
    """A container as the engine describes it. Each method says whether a rule holds, and what was found."""

    def __init__(self, inspect: Mapping[str, Any], language: Language, limits: SandboxLimits) -> None:
        self.host: dict[str, Any] = inspect["HostConfig"]
        self.config: dict[str, Any] = inspect["Config"]
        self.mounted: list[Any] = inspect.get("Mounts") or []
        self.language = language
        self.limits = limits

    def none_of(self, *names: str) -> Answer:
        """Whether all of these settings are empty."""
        found = {name: self.host[name] for name in names if not _empty(self.host.get(name))}
        return not found, found or "none"

    def is_(self, name: str, *values: object) -> Answer:
        """Whether the setting has one of the values."""
        return self.host.get(name) in values, self.host.get(name)

    def capabilities(self) -> Answer:
        """Whether all capabilities are dropped and none is added."""
        dropped, added = self.host.get("CapDrop") or [], self.host.get("CapAdd") or []
        return dropped == ["ALL"] and not added, f"dropped {dropped}, added {added}"

    def mounts(self) -> Answer:
        """Whether nothing of the host is mounted, and no volume."""
        found = [mount.get("Source") for mount in self.mounted]
        found += [self.host[name] for name in ("Binds", "Mounts", "VolumesFrom") if self.host.get(name)]
        return not found and not self.config.get("Volumes"), found or "none"

    def network(self) -> Answer:
        """Whether there is no network and no published port."""
        holds = self.host.get("NetworkMode") == "none" and bool(self.config.get("NetworkDisabled"))
        return holds and not self.host.get("PortBindings"), self.host.get("NetworkMode")

    def memory(self) -> Answer:
        """Whether the limit is the one asked for, and enforced."""
        holds = self.host.get("Memory") == self.limits.memory_bytes and not self.host.get("OomKillDisable")
        return holds, self.host.get("Memory")

    def cpu(self) -> Answer:
        """Whether quota and weight are the ones asked for."""
        found = {
            name: self.host.get(name) or 0 for name in ("CpuQuota", "CpuPeriod", "CpuShares", "NanoCpus")
        }
        wanted = {"CpuQuota": self.limits.cpu_quota_us, "CpuPeriod": 100_000, "CpuShares": 128, "NanoCpus": 0}
        return found == wanted, found

    def ulimits(self) -> Answer:
        """Whether each limit has its value, soft and hard."""
        found = {each["Name"]: (each["Soft"], each["Hard"]) for each in self.host.get("Ulimits") or []}
        size = found.pop("fsize", (-1, -1))
        holds = found == {name: (value, value) for name, value in ULIMITS.items()}
        return holds and 0 < size[1] <= MAX_TMPFS_BYTES, found

    def tmpfs(self) -> Answer:
        """Whether there are exactly two, limited in bytes and in files, and neither allows execution."""
        found: dict[str, str] = self.host.get("Tmpfs") or {}
        options = [set(text.split(",")) for text in found.values()]
        closed = all({"noexec", "nosuid", "nodev", "mode=0700"} <= each for each in options)
        return closed and found.keys() == PLACES and all(map(_bounded, options)), found

    def life(self) -> Answer:
        """Whether it is removed when it ends, and never started again."""
        policy = (self.host.get("RestartPolicy") or {}).get("Name")
        return bool(self.host.get("AutoRemove")) and policy in ("no", ""), f"restart {policy!r}"

    def stdin(self) -> Answer:
        """Whether the sandbox ends with its host process, and has no terminal."""
        found = {name: self.config.get(name) for name in ("OpenStdin", "StdinOnce", "Tty")}
        return found == {"OpenStdin": True, "StdinOnce": True, "Tty": False}, found

    def user(self) -> Answer:
        """Whether the user is one of ours, with one group."""
        uid, _, gid = str(self.config.get("User", "")).partition(":")
        holds = uid.isdigit() and int(uid) in USER_IDS and gid == "10001" and not self.host.get("GroupAdd")
        return holds, self.config.get("User") or "root"

    def environment(self) -> Answer:
        """Whether no variable looks like a secret."""
        names = [line.partition("=")[0] for line in self.config.get("Env") or []]
        bad = [name for name in names if any(word in name.upper() for word in SECRET_WORDS)]
        return not bad, ", ".join(bad) or f"{len(names)} names, none a secret"

    def masked(self) -> Answer:
        """Whether our paths are masked as well as the engine's."""
        missing = MASKED - set(self.host.get("MaskedPaths") or [])
        missing |= READ_ONLY - set(self.host.get("ReadonlyPaths") or [])
        return not missing, ", ".join(sorted(missing)) or "all"

    def program(self) -> Answer:
        """Whether process 1 is our init, and not one of the engine's."""
        found = self.config.get("Entrypoint")
        return found == ["/opt/codeforge/init"] and not self.host.get("Init"), found

    def healthcheck(self) -> Answer:
        """Whether there is none: the engine would execute it in the sandbox, outside init's control."""
        test = (self.config.get("Healthcheck") or {}).get("Test")
        return test in (["NONE"], None), test

    def unknown(self) -> Answer:
        """Whether a rule checks every setting that is not empty."""
        found = [name for name, value in self.host.items() if name not in KNOWN and not _empty(value)]
        return not found, ", ".join(found) or "none"


# The formatter would put each name on its own line.
# fmt: off
KNOWN = {
    "AutoRemove", "CapDrop", "CapAdd", "CgroupnsMode", "CpuPeriod", "CpuQuota", "CpuShares", "Dns", "IpcMode",
    "LogConfig", "MaskedPaths", "Memory", "MemorySwap", "MemorySwappiness", "NetworkMode", "OomScoreAdj",
    "PidsLimit", "ReadonlyPaths", "ReadonlyRootfs", "RestartPolicy", "Runtime", "SecurityOpt", "ShmSize",
    "Tmpfs", "Ulimits",
}
# fmt: on
_FORBIDDEN_DEVICES = ("Devices", "DeviceCgroupRules", "DeviceRequests")
_FORBIDDEN_NETWORK = ("DnsOptions", "DnsSearch", "ExtraHosts", "Links", "PortBindings", "PublishAllPorts")

# Name, what is expected, reference, severity, answer. The formatter would take seven lines for each.
# fmt: off
_RULES: tuple[tuple[str, str, str, Severity, Callable[[Container], Answer]], ...] = (
    ("capabilities", "all dropped, none added", "CIS 5.4; P02", Severity.HIGH, Container.capabilities),
    ("privileged", "no", "CIS 5.5", Severity.HIGH, lambda a: a.none_of("Privileged")),
    ("mounts", "none of the host's", "CIS 5.6, 5.32; N06, F10", Severity.HIGH, Container.mounts),
    ("network", "none", "CIS 5.10, 5.30; N01", Severity.HIGH, Container.network),
    ("network-settings", "none", "CIS 5.9, 5.14", Severity.MEDIUM, lambda a: a.none_of(*_FORBIDDEN_NETWORK)),
    ("name-servers", "127.0.0.1", "N02", Severity.LOW, lambda a: a.is_("Dns", ["127.0.0.1"])),
    ("memory", "the limit", "CIS 5.11; R03", Severity.HIGH, Container.memory),
    ("swap", "none", "CIS 5.11; R06", Severity.HIGH, lambda a: a.is_("MemorySwap", a.limits.memory_bytes)),
    ("cpu", "the quota; an eighth of the weight", "CIS 5.12; R16", Severity.HIGH, Container.cpu),
    ("read-only", "yes", "CIS 5.13; F01", Severity.HIGH, lambda a: a.is_("ReadonlyRootfs", True)),
    ("life", "removed at its end, not restarted", "CIS 5.15; R19", Severity.MEDIUM, Container.life),
    ("pid-namespace", "its own", "CIS 5.16; P05", Severity.HIGH, lambda a: a.none_of("PidMode")),
    ("ipc", "private", "CIS 5.17; R23", Severity.HIGH, lambda a: a.is_("IpcMode", "private")),
    ("devices", "none", "CIS 5.18; P12", Severity.HIGH, lambda a: a.none_of(*_FORBIDDEN_DEVICES)),
    ("ulimits", "core, nofile, fsize, msgqueue, sigpending, memlock", "CIS 5.19; R11, R26", Severity.HIGH,
     Container.ulimits),
    ("uts", "its own", "CIS 5.21", Severity.MEDIUM, lambda a: a.none_of("UTSMode")),
    ("security-options", "no-new-privileges only: the engine's seccomp profile and LSM stay on",
     "CIS 5.1, 5.2, 5.22, 5.26; P01", Severity.HIGH, lambda a: a.is_("SecurityOpt", ["no-new-privileges"])),
    ("cgroup-parent", "the engine's", "CIS 5.25", Severity.MEDIUM, lambda a: a.none_of("CgroupParent")),
    ("cgroup-namespace", "private", "F12", Severity.MEDIUM, lambda a: a.is_("CgroupnsMode", "private")),
    ("healthcheck", "none, against CIS 5.27: it would run beside init", "CIS 5.27", Severity.MEDIUM,
     Container.healthcheck),
    ("pids", "the language's limit", "CIS 5.29; R01", Severity.HIGH,
     lambda a: a.is_("PidsLimit", a.limits.pids)),
    ("log", "none: output is not written to the host's disk", "R12", Severity.MEDIUM,
     lambda a: ((kind := (a.host.get("LogConfig") or {}).get("Type")) == "none", kind)),
    ("tmpfs", "/code and /tmp: noexec, nosuid, nodev, bounded", "R07, R09, F01", Severity.HIGH,
     Container.tmpfs),
    ("shm", f"at most {MAX_SHM_BYTES}", "R08", Severity.MEDIUM,
     lambda a: (0 < a.host.get("ShmSize", 0) <= MAX_SHM_BYTES, a.host.get("ShmSize"))),
    ("masked-paths", "the engine's and ours", "P27", Severity.MEDIUM, Container.masked),
    ("stdin", "closed with its writer, no terminal", "R19, O03", Severity.HIGH, Container.stdin),
    ("user", f"{USER_IDS[0]} to {USER_IDS[-1]}, one group", "CIS 4.1; R27", Severity.HIGH, Container.user),
    ("environment", "no secret", "F10", Severity.HIGH, Container.environment),
    ("oom-score", f"{MIN_OOM_SCORE} or more", "P09", Severity.LOW,
     lambda a: ((a.host.get("OomScoreAdj") or 0) >= MIN_OOM_SCORE, a.host.get("OomScoreAdj"))),
    ("program", "/opt/codeforge/init as process 1", "X04", Severity.HIGH, Container.program),
    ("unknown-settings", "none that this audit does not know", "P26", Severity.MEDIUM, Container.unknown),
)
# fmt: on
_IMAGE = Rule("outside.spec-image", "the one that the language's reference names", "H12", Severity.HIGH)


def look(facts: Facts, language: Language, limits: SandboxLimits) -> Iterator[Check]:
    """Yield every check of the container's settings."""
    container = Container(facts.inspect, language, limits)
    for name, expected, reference, severity, answer in _RULES:
        holds, got = answer(container)
        yield Rule(f"outside.spec-{name}", expected, reference, severity).holds_if(holds, got)
    image = facts.inspect["Image"]
    yield _IMAGE.holds_if(image == facts.image_id, image)


def _bounded(options: set[str]) -> bool:
    named = dict(option.split("=", 1) for option in options if "=" in option)
    size, files = named.get("size", "0"), named.get("nr_inodes", "0")
    return size.isdigit() and 0 < int(size) <= MAX_TMPFS_BYTES and files.isdigit() and int(files) > 0


def _empty(value: object) -> bool:
    return not value or value == [0, 0] or value == "default"
