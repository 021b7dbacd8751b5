#compdef crossfade
# zsh completion of crossfade: source <(crossfade completion zsh)
_crossfade() {
  local -a opts
  local cur=${words[CURRENT]}
  local -a typed=(${words[1,CURRENT-1]})
  [[ "$cur" == -* ]] && typed+=("$cur")
  opts=("${(@f)$(${typed[@]} --generate-bash-completion 2>/dev/null)}")
  if [[ -n "${opts[1]}" ]]; then
    compadd -- $opts
  else
    _files
  fi
}
compdef _crossfade crossfade
