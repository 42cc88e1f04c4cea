# Runs in a directory with the content of the package. Says what the manual and the pages name, and
# which of it is not there.
zcat usr/share/man/man*/*.gz | sed 's/\\-/-/g' | grep -o '/usr/share/doc/fastboot-services/[a-zA-Z/.-]*[a-z]' |
    sort -u | while read -r path; do
        echo "looked for $path"
        test -e ".$path" || echo "the manual names $path"
    done
cd usr/share/doc/fastboot-services || exit 1
for page in README.md docs/*.md; do
    # What is about the source is not in the package.
    grep -o '](\([a-zA-Z0-9/._-]*\.\(md\|svg\)\)' "$page" | sed 's/^](//' | grep -v 'CONTRIBUTING.md$\|tests/' |
        sort -u | while read -r link; do
            echo "looked for $link"
            test -e "$(dirname "$page")/$link" || echo "$page leads to $link"
        done
done
