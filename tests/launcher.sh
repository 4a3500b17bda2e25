# shellcheck shell=bash disable=SC2010,SC2012,SC2086,SC1090,SC1091,SC2164
# What buildpackapplifecycle's launcher runs (launcher/launcher_unix.go): bash -c THIS LAUNCHER APP_FOLDER START_COMMAND.
# Compared with its commit caaa1a0: the metadata that the launcher is given goes no further.
cd "$1"

echo 'Invoking pre-start scripts.'

if [ -n "$(ls ../profile.d/* 2> /dev/null)" ]; then
  for env_file in ../profile.d/*; do
    source $env_file
  done
fi

if [ -n "$(ls .profile.d/* 2> /dev/null)" ]; then
  for env_file in .profile.d/*; do
    source $env_file
  done
fi

if [ -f .profile ]; then
  source .profile
fi

shift

echo 'Invoking start command.'

exec bash -c "$@"
