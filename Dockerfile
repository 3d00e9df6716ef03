# An image with this package, its commands and what they need.
#
#   docker build -t rvs .                                           for CPUs
#   docker build -t rvs-gpu --build-arg EXTRAS=experiments,gpu .    with CUDA's libraries, for NVIDIA GPUs
#   docker run --rm -v "$PWD/runs:/work/runs" rvs python -m experiments.all --profile=smoke --work_dir=runs/smoke
#   docker run --rm --gpus=all -v "$PWD/runs:/work/runs" rvs-gpu python -m rvs_tf.train --train_dir=runs/rvs
FROM python:3.11-slim
ARG EXTRAS=experiments
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY setup.py pyproject.toml README.md LICENSE /source/
COPY madry_cifar /source/madry_cifar
COPY sinkhorn_tf /source/sinkhorn_tf
COPY rvs_tf /source/rvs_tf
COPY experiments /source/experiments
RUN pip install --no-cache-dir "/source[$EXTRAS]"
WORKDIR /work
CMD ["python", "-m", "experiments.demo"]
