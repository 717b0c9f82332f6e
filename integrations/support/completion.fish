# hero-plugin completion fish
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
