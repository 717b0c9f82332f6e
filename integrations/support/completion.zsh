#compdef hero-plugin
# hero-plugin completion zsh
_hero_plugin_commands=(@QUOTED@)
typeset -gA _hero_plugin_flags
_hero_plugin() {
    local before="" command="" word
    local -a next
    for word in "${(@)words[2,CURRENT-1]}"; do
        [[ $word == -- ]] && { _files; return }
        [[ $word == -* ]] && break
        before+="$word "
        (( ${_hero_plugin_commands[(Ie)${before% }]} )) && command="${before% }"
    done
    if [[ $PREFIX == -* ]]; then
        local key="${command:-none}"
        if [[ -n $command && -z ${_hero_plugin_flags[$key]} ]]; then
            _hero_plugin_flags[$key]="$(@HELP@)"
        fi
        next=(${(f)_hero_plugin_flags[$key]} --help)
    else
        next=(${(M)_hero_plugin_commands:#$before*})
        next=(${(u)${next#$before}%% *})
    fi
    (( $#next )) && compadd -a next || _files
}
compdef _hero_plugin hero-plugin
