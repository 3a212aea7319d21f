# SPDX-License-Identifier: Apache-2.0
# An image for NVIDIA GPUs with a driver for CUDA 12, from the checkout. Not built by our tests.
#   docker build -t bcmb .
#   docker run --rm --gpus all --user "$(id -u)" -e HOME=/work -v "$PWD:/work" bcmb train --config tiny
FROM python:3.12-slim AS wheel
COPY . /checkout
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /checkout

FROM python:3.12-slim
COPY constraints/py312-jax0.12.txt /constraints.txt
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir -c /constraints.txt "$(ls /wheels/bcmb_jax-*.whl)[cuda12]"
WORKDIR /work
ENTRYPOINT ["bcmb"]
