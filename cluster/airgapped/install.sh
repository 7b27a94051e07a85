#!/usr/bin/env bash
# Install unsee_dist from the wheels beside this script, without a network.
#   install.sh               into the Python that is active (PYTHON=... for another): a virtual environment, or your own
#   install.sh --target DIR  into a folder, where you may not write to Python's: then export PYTHONPATH=DIR
# torch must be there already; it is not among the wheels.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
"$python" -c 'import torch' 2>/dev/null || {
  echo "install.sh: $python has no torch. Activate the environment that has it, or write PYTHON=/path/to/python." >&2
  exit 2
}
pip=("$python" -m pip install --no-index --disable-pip-version-check)
case ${1:-} in
  "") "${pip[@]}" --find-links "$here" "$here"/unsee_dist-*.whl ;;
  --target)
    target=${2:?usage: install.sh --target DIR}
    # Not resolved: with --target pip does not see what is installed, and would look for torch. So only those wheels that
    # Python lacks, or has in a version that another wheel does not take.
    mapfile -t lacking < <("$python" - "$here"/*.whl <<'PY'
import re, sys, zipfile
from importlib import metadata
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name
wanted, wheels = {}, {}
for path in sys.argv[1:]:
    with zipfile.ZipFile(path) as wheel:
        text = wheel.read(next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))).decode()
    wheels[canonicalize_name(re.search(r"^Name: (\S+)", text, re.M)[1])] = path
    for line in re.findall(r"^Requires-Dist: (.+?)\s*$", text, re.M):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            wanted.setdefault(canonicalize_name(requirement.name), []).append(requirement.specifier)
for name, path in wheels.items():
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = None
    if name == "unsee-dist" or version is None or not all(s.contains(version, True) for s in wanted.get(name, [])):
        print(path)
PY
    )
    "${pip[@]}" --no-deps --no-compile --target "$target" "${lacking[@]}"
    target=$(cd "$target" && pwd)
    export PYTHONPATH="$target${PYTHONPATH:+:$PYTHONPATH}"
    echo "export PYTHONPATH=$target\${PYTHONPATH:+:\$PYTHONPATH}" ;;
  *) echo "usage: install.sh [--target DIR]" >&2; exit 2 ;;
esac
cd / && "$python" -c 'import importlib.metadata as m, unsee_dist.config, unsee_dist.data; print("installed: unsee_dist", m.version("unsee_dist"))'
echo "next: unsee --version   (or $python -m unsee_dist), then unsee train CONFIG.yaml"
