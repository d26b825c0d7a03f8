# Becomes the command. Words: the folder, where to go or nothing, what to set, --, the command.
# The files are opened here: some shells would tell there how the command ended.
exec >"$1/out" 2>"$1/err" 3>&- 4>&-
echo $$ >"$1/pid"
if [ -n "$2" ] && ! cd "$2"; then
    : >"$1/no-cwd"
    exit 125
fi
shift 2
while [ "$1" != -- ]; do
    export "$1"
    shift
done
shift
exec "$@"
