# shellcheck shell=bash
# Sends the app through outrider, where an outrider runs beside it.
#
# The platform's launcher sources this file (from .profile.d/ of the app, or from a buildpack's profile.d/) in the shell
# that becomes the process, once for each process of the container: the app, and the sidecar itself. So it asks first:
#
#   - is this a process that has the sidecar? Tasks have none; their VCAP_APPLICATION names no process type.
#     OUTRIDER_PROCESS_TYPES lists those that have one, as `process_types` of the sidecar does; the default is web.
#   - is this the sidecar itself, or a command under `outrider exec`? The launcher's $2 is the start command.
#
# Then it waits, for at most OUTRIDER_WAIT seconds (15 at most), until the proxy listens: by then the CA bundle is
# written, which many runtimes read only once, when they start. If the proxy is not there in time the variables are
# set all the same: an app that cannot call out is noticed, one that calls past the proxy is not.
#
# It shares the shell with scripts of others, so it leaves no names and no options behind, ends nothing when
# something fails, and works under `set -e` and `set -u`.

__outrider_profile() {
  local command=$1 process_type binary variables host port wait deadline now

  # Where a buildpack brought the program and nothing was configured, its default configuration holds; for the
  # sidecar and for `outrider exec` in a task, too.
  if [[ -z ${OUTRIDER_CONFIG-} && -n ${__outrider_default-} && ! -e $HOME/outrider.yml ]]; then
    export OUTRIDER_CONFIG=$__outrider_default
  fi

  [[ ${VCAP_APPLICATION-} =~ \"process_type\"[[:space:]]*:[[:space:]]*\"([^\"]*)\" ]] || return 0
  process_type=${BASH_REMATCH[1]}
  local served=${OUTRIDER_PROCESS_TYPES:-web}
  case ",${served//[[:space:]]/,}," in
    *",$process_type,"*) ;;
    *) return 0 ;;
  esac

  local ours='(^|[[:space:]/"'\''])outrider["'\'']?[[:space:]]+(run|exec)([[:space:]]|$)'
  [[ $command =~ $ours ]] && return 0

  for binary in "${__outrider_binary-}" "$HOME/outrider" "$(command -v outrider)"; do
    [[ -f $binary && -x $binary ]] && break
  done
  if [[ ! -x $binary ]]; then
    echo "outrider: not found as $HOME/outrider or on the PATH; the app starts without it" >&2
    return 0
  fi
  if ! variables=$("$binary" env --format sh); then
    echo "outrider: the configuration is not sound; the app starts without the proxy" >&2
    return 0
  fi

  if [[ $variables =~ http_proxy=\'http://([^\']*):([0-9]+)\' ]]; then
    host=${BASH_REMATCH[1]}
    host=${host#'['}
    host=${host%']'}
    port=${BASH_REMATCH[2]}
    wait=${OUTRIDER_WAIT:-15}
    [[ $wait =~ ^[0-9]$|^1[0-5]$ ]] || wait=15
    printf -v deadline '%(%s)T' -1
    ((deadline += wait))
    # In a subshell, so that no descriptor of ours stays open.
    until (: <"/dev/tcp/$host/$port") 2>/dev/null; do
      printf -v now '%(%s)T' -1
      if ((now >= deadline)); then
        echo "outrider: nothing listens on $host:$port yet; the app starts all the same" >&2
        break
      fi
      sleep 0.1
    done
  fi

  eval "$variables"
}

# What follows `||` keeps `set -e` and ERR traps of others out of the function.
__outrider_profile "${2-}" || :
unset -f __outrider_profile
unset -v __outrider_binary __outrider_default
