# Programs of the wider set: further.sh NAME CELL...
name=$1; shift
here=$(mktemp -d) && cd "$here" && trap 'rm -rf "$here"' EXIT
export HOME="$here"
for c; do
  echo "== ${c%%=*}"
  url=${c#*=}
  case $name in
    aria2) aria2c --console-log-level=warn --max-tries=1 --connect-timeout=5 --timeout=5 --allow-overwrite -o got "$url" && cat got ;;
    httpie) "$TOOLS/further/venv/bin/http" --ignore-stdin --timeout=10 --print=hb GET "$url" ;;
    lftp) lftp -c "set net:max-retries 1; set net:timeout 5; cat $url" ;;
    lynx) lynx -dump -connect_timeout=5 "$url" ;;
    rclone) rclone copyurl --stdout --retries 1 --low-level-retries 1 "$url" ;;
    svn) svn info --non-interactive "$url" ;;
    w3m) w3m -dump "$url" ;;
  esac 2>&1
  echo
done
