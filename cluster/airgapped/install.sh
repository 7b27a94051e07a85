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
    # Not resolved: with --target pip does not see what is installed, and would look for torch.
    "${pip[@]}" --no-deps --no-compile --target "$target" "$here"/*.whl
    target=$(cd "$target" && pwd)
    export PYTHONPATH="$target${PYTHONPATH:+:$PYTHONPATH}"
    echo "export PYTHONPATH=$target\${PYTHONPATH:+:\$PYTHONPATH}" ;;
  *) echo "usage: install.sh [--target DIR]" >&2; exit 2 ;;
esac
cd / && "$python" -c 'import importlib.metadata as m, unsee_dist.config, unsee_dist.data; print("installed: unsee_dist", m.version("unsee_dist"))'
echo "next: unsee --version   (or $python -m unsee_dist.cli), then unsee train CONFIG.yaml"
