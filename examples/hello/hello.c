/* Greets each of its arguments, a line each. Ends with exit code 1 where there is none to greet or nobody to read it. */

#include <stdio.h>

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        printf("hello, %s\n", argv[i]);
    return argc == 1 || fflush(stdout) != 0;
}
