
# The names of guests and profiles are asked for when they are wanted.
_mvm_first_column() {
    local first
    read -r _
    while read -r first _; do echo "$first"; done
}
_mvm_with_names() {
    _mvm "$@"
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} names=
    [[ $COMP_CWORD -ge 2 && $current != -* ]] || return 0
    case "${COMP_WORDS[1]} $before" in
        *' --profile' | 'profile show' | 'profile check')
            names=$("$1" profile list 2>/dev/null | _mvm_first_column)
            ;;
        *' --'*) return 0 ;; # an option's value
        'run '* | 'start '*)
            names=$({ "$1" list --all | _mvm_first_column; "$1" profile list | _mvm_first_column; } 2>/dev/null)
            ;;
        'stop '* | 'kill '* | 'reboot '* | 'reset '* | 'pause '* | 'resume '* | 'show '* | 'wait '* | \
        'console '* | 'log '* | 'memory '* | 'exec '* | 'ip '* | 'info '* | 'fsfreeze '* | 'set-time '* | 'agent '* | 'attach '* | 'detach '* | 'insert '* | 'eject '* | 'qmp '* | 'edit '* | 'remove '* | 'recover '*)
            names=$("$1" list --all 2>/dev/null | _mvm_first_column)
            ;;
        *) return 0 ;;
    esac
    [[ -n $current ]] || COMPREPLY=()
    COMPREPLY+=($(compgen -W "$names" -- "$current"))
}
complete -F _mvm_with_names -o bashdefault -o default mvm
