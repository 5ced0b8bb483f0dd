# docker build -t mbrl-pvr .        docker run --rm -v "$PWD/runs:/home/user/mbrl_pvr/runs" mbrl-pvr make demo
FROM debian:12-slim

# what tools/setup.sh installs as root, so that the build needs no root after this line; ManiSkill's driver needs none
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      ca-certificates git make python3 python3-venv \
      libegl1 libgl1 libglu1-mesa libfreetype6 libfontconfig1 libglib2.0-0 libosmesa6 gcc g++ python3-dev \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 user
USER user
WORKDIR /home/user/mbrl_pvr

COPY --chown=user:user . .
RUN make setup setup-maniskill

ENV PATH=/home/user/mbrl_pvr/.venv/bin:$PATH MUJOCO_GL=egl
CMD ["mbrl-pvr", "--help"]
