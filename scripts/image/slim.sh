#!/usr/bin/env bash
# Removes from the image's environment what serving never reads: the packages' own tests, headers, static libraries,
# symbols for debuggers, and most programs of torch. Prints what is left. For CPUs (slim.sh cpu) also torch.compile, which
# would need a compiler at run time, and what torch requires for it alone; for GPUs these are a hundredth of the image.
set -euo pipefail
cd /opt/peregrine
if [ "${1:-}" = cpu ]; then
    pip --python bin/python uninstall --quiet --yes sympy mpmath networkx setuptools 2>/dev/null
    rm -rf lib/python3*/site-packages/torch/{_dynamo,_inductor,onnx}
    # 98 MB of names of functions that are not exported.
    find lib/python3*/site-packages -path '*/torch/lib/*.so' -exec strip --strip-unneeded {} +
fi
cd lib/python3*/site-packages
rm -rf torch/{test,include,share}
# torch wants to see this one when it is imported.
find . -path './torch/bin/*' -type f -not -name torch_shm_manager -delete
find . -depth -type d -name tests -not -path './torch/*' -exec rm -r {} +
# Triton's headers are for the stage that fills its cache.
find . -regextype egrep -type f -not -path './triton/*' -regex '.*\.(a|h|pyi|pxd|pyx)' -delete
# Libraries in folders of their own (*.libs) were laid out by hand: strip would break some of them.
find . -name '*.cpython-*.so' -not -path './torch/*' -not -path './nvidia/*' -exec strip --strip-unneeded {} +
du -sh .
