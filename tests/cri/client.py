"""usage: client.py SOCKET COMMAND ARGUMENT…
Asks a container runtime over the CRI, as the kubelet does:

version                         prints its name and version
run SANDBOX.json                starts a sandbox; prints its ID
pod POD                         prints the sandbox's process, and its addresses
stop-pod POD, remove-pod POD
create POD FILE.json SANDBOX.json   prints the container's ID
start ID
exec ID PROGRAM ARGUMENT…       as a probe does; prints what it prints, and exits with its status
container ID                    prints state, exit status, process and reason
stop ID SECONDS                 the grace period
remove ID"""

import json
import sys

import grpc
from cri_api.v1 import api_pb2 as api, api_pb2_grpc
from google.protobuf.json_format import ParseDict


def read(path, message):
    with open(path, encoding="utf-8") as file:
        return ParseDict(json.load(file), message)


def run(stub, path):
    config = read(path, api.PodSandboxConfig())
    print(stub.RunPodSandbox(api.RunPodSandboxRequest(config=config)).pod_sandbox_id)


def pod(stub, pod_id):
    answer = stub.PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=pod_id, verbose=True))
    network = answer.status.network
    print(json.loads(answer.info["info"])["pid"], network.ip, *(more.ip for more in network.additional_ips))


def create(stub, pod_id, path, sandbox_path):
    request = api.CreateContainerRequest(
        pod_sandbox_id=pod_id,
        config=read(path, api.ContainerConfig()),
        sandbox_config=read(sandbox_path, api.PodSandboxConfig()),
    )
    print(stub.CreateContainer(request).container_id)


def execute(stub, container_id, *command):
    answer = stub.ExecSync(api.ExecSyncRequest(container_id=container_id, cmd=command, timeout=10))
    sys.stdout.buffer.write(answer.stdout)
    sys.stderr.buffer.write(answer.stderr)
    sys.exit(answer.exit_code)


def container(stub, container_id):
    answer = stub.ContainerStatus(api.ContainerStatusRequest(container_id=container_id, verbose=True))
    status = answer.status
    state = api.ContainerState.Name(status.state)
    print(state, status.exit_code, json.loads(answer.info["info"])["pid"], status.reason)


def version(stub):
    answer = stub.Version(api.VersionRequest())
    print(answer.runtime_name, answer.runtime_version)


COMMANDS = {
    "version": version,
    "run": run,
    "pod": pod,
    "stop-pod": lambda stub, pod_id: stub.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod_id)),
    "remove-pod": lambda stub, pod_id: stub.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod_id)),
    "create": create,
    "start": lambda stub, name: stub.StartContainer(api.StartContainerRequest(container_id=name)),
    "exec": execute,
    "container": container,
    "stop": lambda stub, name, grace: stub.StopContainer(api.StopContainerRequest(container_id=name, timeout=int(grace))),
    "remove": lambda stub, name: stub.RemoveContainer(api.RemoveContainerRequest(container_id=name)),
}


def main(socket, command, *arguments):
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        try:
            COMMANDS[command](api_pb2_grpc.RuntimeServiceStub(channel), *arguments)
        except grpc.RpcError as error:
            sys.exit(f"{command}: {error.details()}")


main(*sys.argv[1:])
