"""usage: entries.py ARCHIVE FOLDER
Unpacks each image of an OCI index into a folder of its own, and prints a line for each: the platform, how many
bytes its files take, the folder. Every digest is compared with what it stands for."""

import hashlib
import io
import json
import pathlib
import sys
import tarfile


def main(archive, folder):
    with tarfile.open(archive) as files:

        def blob(descriptor):
            algorithm, digest = descriptor["digest"].split(":")
            content = files.extractfile(f"blobs/{algorithm}/{digest}").read()
            if hashlib.new(algorithm, content).hexdigest() != digest or len(content) != descriptor["size"]:
                sys.exit(f"{descriptor} does not match its content")
            return content

        (index,) = json.load(files.extractfile("index.json"))["manifests"]
        for entry in json.loads(blob(index))["manifests"]:
            manifest = json.loads(blob(entry))
            config = json.loads(blob(manifest["config"]))
            claimed, platform = (
                "/".join(filter(None, (of.get("architecture"), of.get("variant")))) for of in (entry["platform"], config)
            )
            # podman 4.3 leaves the variant out of the image; containerd takes it from the index, or v7 for arm.
            if platform not in (claimed, claimed.removesuffix("/v7")):
                sys.exit(f"the image of {claimed} says that it is for {platform}")
            platform = claimed
            into = pathlib.Path(folder) / platform.replace("/", "-")
            into.mkdir(parents=True)
            size = 0
            for layer in manifest["layers"]:
                with tarfile.open(fileobj=io.BytesIO(blob(layer))) as tar:
                    size += sum(member.size for member in tar)
                    tar.extractall(into)
            print(platform, size, into)


main(*sys.argv[1:])
