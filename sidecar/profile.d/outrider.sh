# shellcheck shell=bash
# Sends the app through outrider, or nowhere.
#
# The platform's launcher sources this file (from .profile.d/ of the app, or from a buildpack's profile.d/) in the shell
# that becomes the process, once for each process of the container: the app, and the sidecar itself. Its $2 is the start
# command; `outrider role` reads it, and the shell scripts that it names, and says whether `outrider run` or
# `outrider exec` stands in them. A sidecar for which that does not show has OUTRIDER_ROLE=sidecar in front of its
# command. outrider heeds no proxy variables, and `exec` sets them anew for its command; what else such a command starts
# must not call past the proxy. So it gets the variables, too, keeps its secrets, and waits for nothing: it may be what
# brings the proxy.
#
# Every process gets the variables, whatever is wrong: an app that cannot call out is noticed, one that calls past the
# proxy is not. That goes for a program that is missing or cannot run, for a configuration that is not sound, for tasks,
# which never have a sidecar, and for process types that OUTRIDER_PROCESS_TYPES (web, where it is not set) does not list.
# Each is told with its reason. OUTRIDER_WITHOUT_SIDECAR=direct lets tasks and process types that are not listed call
# directly.
#
# Where destinations take secrets from variables or VCAP_SERVICES, the app gets placeholders in their place: `outrider env`
# prints them. The sidecar reads the same ones from a file that the first of the two processes writes.
#
# A process that has the sidecar waits, for at most OUTRIDER_WAIT seconds (15 at most), until the proxy listens: by then
# the CA bundle is written, which many runtimes read only once, when they start.
#
# It shares the shell with scripts of others, so it leaves no names and no options behind, ends nothing when
# something fails, and works under `set -e`, `set -u` and other options.

# The variables for a proxy at the address that outrider has where nothing else is written, for when outrider itself
# cannot be asked.
__outrider_closed() {
  local proxy=127.0.0.1 hosts=localhost,127.0.0.1,::1,apps.internal,.apps.internal
  hosts+=${no_proxy:+,$no_proxy}
  [[ -z ${no_proxy-} ]] && hosts+=${NO_PROXY:+,$NO_PROXY}
  export http_proxy=http://$proxy:3128 HTTP_PROXY=http://$proxy:3128
  export https_proxy=http://$proxy:3128 HTTPS_PROXY=http://$proxy:3128
  export YARN_HTTP_PROXY=http://$proxy:3128 YARN_HTTPS_PROXY=http://$proxy:3128
  export no_proxy=$hosts NO_PROXY=$hosts NODE_USE_ENV_PROXY=1 PERL_LWP_ENV_PROXY=1 MOJO_PROXY=1
  JAVA_TOOL_OPTIONS="${JAVA_TOOL_OPTIONS:+$JAVA_TOOL_OPTIONS }-Dhttp.proxyHost=$proxy -Dhttp.proxyPort=3128"
  export JAVA_TOOL_OPTIONS="$JAVA_TOOL_OPTIONS -Dhttps.proxyHost=$proxy -Dhttps.proxyPort=3128"
}

__outrider_profile() {
  local command=$1 role process_type='' is_served='' without='' binary variables host port wait deadline now why status

  # Where a buildpack brought the program and nothing was configured, its default configuration holds; for the
  # sidecar and for `outrider exec` in a task, too.
  if [[ -z ${OUTRIDER_CONFIG-} && -n ${__outrider_default-} && ! -e ${HOME-}/outrider.yml && ! -L ${HOME-}/outrider.yml ]]; then
    export OUTRIDER_CONFIG=$__outrider_default
  fi

  if [[ ${VCAP_APPLICATION-} =~ \"process_type\"[[:space:]]*:[[:space:]]*\"([^\"]*)\" ]]; then
    process_type=${BASH_REMATCH[1]}
  elif [[ -z ${VCAP_APPLICATION-} || -z $command ]]; then
    # Not on the platform, or no process of it: while an app is staged there is no start command.
    return 0
  fi
  local served=${OUTRIDER_PROCESS_TYPES:-web}
  [[ -n $process_type && ",${served//[[:space:]]/,}," == *",$process_type,"* ]] && is_served=yes
  [[ -z $is_served && ${OUTRIDER_WITHOUT_SIDECAR-} == direct ]] && return 0

  # A final buildpack of the older kind sets no PATH for what other buildpacks brought.
  if [[ -n ${__outrider_binary-} ]] && ! command -v outrider >/dev/null; then
    export PATH=$PATH:${__outrider_binary%/*}
  fi
  for binary in "${__outrider_binary-}" "${HOME-}/outrider" "$(command -v outrider)"; do
    [[ -f $binary ]] && break
  done
  # One that cannot run is told of below.
  role=$("$binary" role -- "$command" 2>/dev/null)
  if [[ $role == sidecar || $role == exec ]]; then
    __outrider_closed
    return 0
  fi
  if [[ -z $is_served ]]; then
    without="a task has no sidecar; run \`outrider exec -- CMD\`"
    if [[ -n $process_type ]]; then
      without="the process type $process_type has no sidecar; add it to process_types and to OUTRIDER_PROCESS_TYPES"
    fi
    without+=", or set OUTRIDER_WITHOUT_SIDECAR=direct to let it call past the proxy"
    echo "outrider: its calls will fail: $without" >&2
  fi

  if [[ ! -f $binary ]]; then
    echo "outrider: its calls will fail: no program ${HOME-}/outrider and none on the PATH" >&2
    __outrider_closed
    return 0
  fi
  why=$("$binary" --version 2>&1 >/dev/null)
  status=$?
  if ((status != 0)); then
    # A program for another processor or a newer C library, or without the right to be run.
    echo "outrider: its calls will fail: $binary cannot run here (status $status): ${why:-it says nothing}" >&2
    __outrider_closed
    return 0
  fi
  if ! variables=$("$binary" env --format sh); then
    echo "outrider: its calls will fail: \`outrider env\` does, for the reason above" >&2
    __outrider_closed
    return 0
  fi
  if [[ $variables != *http_proxy=* ]]; then
    # An empty file is a shell script that succeeds.
    echo "outrider: its calls will fail: $binary is not outrider: \`outrider env\` says nothing" >&2
    __outrider_closed
    return 0
  fi

  if [[ -n $is_served && $variables =~ http_proxy=\'http://([^\']*):([0-9]+)\' ]]; then
    host=${BASH_REMATCH[1]}
    host=${host#'['}
    host=${host%']'}
    port=${BASH_REMATCH[2]}
    wait=${OUTRIDER_WAIT:-15}
    [[ $wait =~ ^[0-9]$|^1[0-5]$ ]] || wait=15
    builtin printf -v deadline '%(%s)T' -1
    ((deadline += wait))
    # In a subshell, so that no descriptor of ours stays open.
    until (: <"/dev/tcp/$host/$port") 2>/dev/null; do
      builtin printf -v now '%(%s)T' -1
      if ((now >= deadline)); then
        echo "outrider: nothing listens on $host:$port after $wait s; the app starts all the same, and its calls will" \
          "fail. If \`$command\` is what starts the proxy, write OUTRIDER_ROLE=sidecar in front of it" >&2
        break
      fi
      sleep 0.1
    done
  fi

  eval "$variables"
  return 0
}

# As a condition, so that `set -e` and ERR traps of others stay out of the function. Where a variable of others is read-only
# and has a name of ours, bash leaves the function in the middle.
__outrider_ended=
if __outrider_profile "${2-}"; then __outrider_ended=yes; fi
if [[ -z $__outrider_ended ]]; then
  echo "outrider: its calls will fail: the profile script was stopped, for the reason above" >&2
  __outrider_closed || :
fi
unset -f __outrider_profile __outrider_closed
unset -v __outrider_binary __outrider_default __outrider_ended
