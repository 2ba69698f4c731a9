"""usage: pod.py MANIFEST DAEMONSET FOLDER NAME=VALUE…
Writes what the kubelet asks the container runtime for, to run a pod of that DaemonSet, in the form of crictl:
FOLDER/sandbox.json, and a file for each container. Prints the containers' names.

The names: uid, the pod's; attempt, how often its containers have been started before; cgroup, the pods' parent; hosts,
the node's addresses; image, for containers without one; users, the first user of a pod with hostUsers: false."""

import json
import pathlib
import sys

import yaml

KUBELET, LOGS = "/var/lib/kubelet/pods", "/var/log/pods"
TCP_UDP_SCTP = ["TCP", "UDP", "SCTP"]
# enum values of the CRI
POD, CONTAINER = 0, 1
RUNTIME_DEFAULT, UNCONFINED = 0, 1
# What every container has masked, unless procMount says otherwise.
MASKED = "asound acpi kcore keys latency_stats timer_list timer_stats sched_debug scsi".split()
READONLY = "bus fs irq sys sysrq-trigger".split()


def namespaces(given):
    options = {"network": POD, "pid": CONTAINER, "ipc": POD}
    if "users" in given:
        ids = [{"host_id": int(given["users"]), "container_id": 0, "length": 65536}]
        options["userns_options"] = {"mode": POD, "uids": ids, "gids": ids}
    return options


def seccomp(context):
    kind = context.get("seccompProfile", {}).get("type")
    return {"profile_type": RUNTIME_DEFAULT if kind == "RuntimeDefault" else UNCONFINED}


def services(links):
    """The variables of Services, with links those in the pod's own namespace too; one of them has this program's name."""
    variables = {}
    for name, address, port in [("KUBERNETES", "10.43.0.1", 443)] + links * [("NODEFWD", "10.43.0.9", 80)]:
        url = f"tcp://{address}:{port}"
        variables |= {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(port), f"{name}_PORT": url}
        prefix = f"{name}_PORT_{port}_TCP"
        variables |= {prefix: url, f"{prefix}_PROTO": "tcp", f"{prefix}_PORT": str(port), f"{prefix}_ADDR": address}
    return variables


def environment(container, spec, given):
    variables = services(spec.get("enableServiceLinks", True))
    for variable in container["env"]:
        field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        variables[variable["name"]] = variable["value"] if field is None else {"status.hostIPs": given["hosts"]}[field]
    return [{"key": name, "value": value} for name, value in variables.items()]


def sandbox(name, namespace, spec, given):
    ports = [port for container in spec["containers"] for port in container["ports"]]
    sysctls = {entry["name"]: entry["value"] for entry in spec["securityContext"]["sysctls"]}
    return {
        "metadata": {"name": name, "uid": given["uid"], "namespace": namespace, "attempt": 0},
        "hostname": name,
        "log_directory": f"{LOGS}/{namespace}_{name}_{given['uid']}",
        "dns_config": {"servers": ["10.43.0.10"], "searches": [f"{namespace}.svc.cluster.local"], "options": ["ndots:5"]},
        "port_mappings": [
            {
                "protocol": TCP_UDP_SCTP.index(port["protocol"]),
                "container_port": port["containerPort"],
                "host_port": port["hostPort"],
            }
            for port in ports
        ],
        "labels": {"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": namespace},
        "linux": {
            "cgroup_parent": given["cgroup"],
            "sysctls": sysctls,
            "security_context": {
                "namespace_options": namespaces(given),
                "seccomp": {"profile_type": RUNTIME_DEFAULT},
            },
        },
    }


def container_of(container, spec, given):
    name = container["name"]
    context = container["securityContext"]
    capabilities = context["capabilities"]
    memory = container.get("resources", {}).get("limits", {}).get("memory", "0Mi").removesuffix("Mi")
    folder = f"{KUBELET}/{given['uid']}"
    return {
        "metadata": {"name": name, "attempt": int(given["attempt"])},
        "image": {"image": container.get("image", given["image"])},
        "envs": environment(container, spec, given),
        "mounts": [
            {"container_path": "/etc/hosts", "host_path": f"{folder}/etc-hosts"},
            {"container_path": "/dev/termination-log", "host_path": f"{folder}/containers/{name}/termination-log"},
        ],
        "labels": {"io.kubernetes.container.name": name},
        "log_path": f"{name}/{given['attempt']}.log",
        "linux": {
            "resources": {
                "cpu_shares": 2,
                "memory_limit_in_bytes": int(memory) * 1024 * 1024,
                "oom_score_adj": -997,
            },
            "security_context": {
                "namespace_options": namespaces(given),
                "capabilities": {
                    "add_capabilities": capabilities.get("add", []),
                    "drop_capabilities": capabilities.get("drop", []),
                },
                "readonly_rootfs": context.get("readOnlyRootFilesystem", False),
                "no_new_privs": not context.get("allowPrivilegeEscalation", True),
                "seccomp": seccomp(spec["securityContext"] | context),
                "masked_paths": [f"/proc/{path}" for path in MASKED] + ["/sys/firmware"],
                "readonly_paths": [f"/proc/{path}" for path in READONLY],
            },
        },
    }


def main(manifest, daemonset, folder, *words):
    given = dict(word.split("=", 1) for word in words)
    with open(manifest, encoding="utf-8") as file:
        (found,) = (entry for entry in yaml.safe_load_all(file) if entry["metadata"]["name"] == daemonset)
    spec = found["spec"]["template"]["spec"]
    name, namespace = f"{daemonset}-x7k2p", found["metadata"]["namespace"]
    requests = {"sandbox": sandbox(name, namespace, spec, given)}
    for container in spec["containers"]:
        requests[container["name"]] = container_of(container, spec, given)
        print(container["name"])
    for name, request in requests.items():
        pathlib.Path(folder, f"{name}.json").write_text(json.dumps(request, indent=2), encoding="utf-8")


main(*sys.argv[1:])
