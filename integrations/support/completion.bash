# hero-plugin completion bash
_hero_plugin_commands='@COMMANDS@'
declare -A _hero_plugin_flags
_hero_plugin() {
    local current="${COMP_WORDS[COMP_CWORD]}" before="" command="" word
    COMPREPLY=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ $word == -- ]] && return
        [[ $word == -* ]] && break
        before+="$word "
        grep -qx -- "${before% }" <<< "$_hero_plugin_commands" && command="${before% }"
    done
    if [[ $current == -* ]]; then
        local key="${command:-none}"
        if [[ -n $command && -z ${_hero_plugin_flags[$key]} ]]; then
            _hero_plugin_flags[$key]="$(@HELP@)"
        fi
        COMPREPLY=($(compgen -W "${_hero_plugin_flags[$key]} --help" -- "$current"))
    else
        local next="$(sed -n "s/^$before//p" <<< "$_hero_plugin_commands" | cut -d ' ' -f 1 | sort -u)"
        COMPREPLY=($(compgen -W "$next" -- "$current"))
    fi
}
complete -o bashdefault -o default -F _hero_plugin hero-plugin
