# Notes who it is, then becomes the program: recorded.sh FILE PROGRAM [ARGUMENT...]
# The id and the start time (field 22 of stat) stay the same across exec; with the id of this boot they name one process.
file=$1
shift
read -r boot </proc/sys/kernel/random/boot_id
read -r stat </proc/$$/stat
printf '%s\n%s\n' "$boot" "$stat" >"$file"
exec "$@"
