"""Completion of command lines in bash, zsh and fish: commands from a list, flags from the command's own help.

The scripts hold no flags, so that printing one loads nothing. A shell asks a command for its help at the first TAB
behind it, which takes as long as that help, and remembers the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

HELP = r"hero-plugin {command} --help 2>/dev/null | grep -oE '^  --[^ ,]+(, --[^ ,]+)?' | tr -d ' ' | tr ',' '\n'"
"""Prints the flags of a command, one a line."""

BASH = r"""# hero-plugin completion bash
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
"""

ZSH = r"""#compdef hero-plugin
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
"""

FISH = r"""# hero-plugin completion fish
set -g _hero_plugin_commands @QUOTED@
function _hero_plugin_words
    set -l current (commandline -ct)
    set -l before
    set -l command
    for word in (commandline -opc)[2..-1]
        string match -q -- '-*' $word; and break
        set -a before $word
        contains -- "$before" $_hero_plugin_commands; and set command "$before"
    end
    if string match -q -- '-*' $current
        set -l key _hero_plugin_flags_(string replace -ar '[^a-z0-9]' _ -- "$command")
        if test -n "$command"; and not set -q $key
            set -l words (string split ' ' -- $command)
            set -g $key (@FISH_HELP@)
        end
        printf '%s\n' $$key --help
    else
        for each in $_hero_plugin_commands
            if test -z "$before"
                string split -m 1 -f 1 ' ' -- "$each "
            else if string match -q -- "$before *" $each
                string split ' ' -- $each | sed -n (math (count $before) + 1)p
            end
        end | sort -u
    end
end
complete -c hero-plugin -f -n 'test (count (_hero_plugin_words)) -gt 0' -a '(_hero_plugin_words)'
"""


def completion_script(shell: str, commands: Iterable[str]) -> str:
    """Return what a shell reads to complete ``hero-plugin``.

    Args:
        shell: bash, zsh or fish.
        commands: Names of commands, with a blank between the words of one.
    """
    names = sorted(commands)
    parts = {
        "@COMMANDS@": "\n".join(names),
        "@QUOTED@": " ".join(f"'{name}'" for name in names),
        "@HELP@": HELP.format(command="$command" if shell == "bash" else "${=command}"),
        "@FISH_HELP@": HELP.format(command="$words"),
    }
    script = SCRIPTS[shell]
    for name, text in parts.items():
        script = script.replace(name, text)
    return script


SCRIPTS: Mapping[str, str] = {"bash": BASH, "zsh": ZSH, "fish": FISH}
"""By shell."""
