package night

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/api"
)

// vaultCommand is as much of HashiCorp's command of that name as page, status and runbook name. It talks to a real Vault,
// as an administrator who is logged in.
func vaultCommand(args []string, in io.Reader, out io.Writer) error {
	config := api.DefaultConfig()
	options, words := map[string]string{}, []string{}
	for _, a := range args {
		if option, is := strings.CutPrefix(a, "-"); is {
			key, value, _ := strings.Cut(option, "=")
			options[key] = value
		} else {
			words = append(words, a)
		}
	}
	if options["address"] != "" {
		config.Address = options["address"]
	}
	client, err := api.NewClient(config)
	if err != nil {
		return err
	}
	client.SetToken(os.Getenv("VAULT_TOKEN"))
	path := ""
	if len(words) > 2 {
		path = words[2]
	}
	switch command := strings.Join(words[:min(2, len(words))], " "); {
	case command == "operator unseal":
		key, err := io.ReadAll(in) // it asks for the key
		if err != nil {
			return err
		}
		answer, err := client.Sys().Unseal(strings.TrimSpace(string(key)))
		if err == nil {
			fmt.Fprintf(out, "Sealed    %v\n", answer.Sealed)
		}
		return err
	case words[0] == "write" && len(words) == 2:
		answer, err := client.Logical().Write(words[1], nil)
		if err == nil {
			fmt.Fprint(out, answer.Data[options["field"]])
		}
		return err
	case command == "policy write" && len(words) == 4:
		text, err := os.ReadFile(words[3])
		if err != nil {
			return err
		}
		return client.Sys().PutPolicy(words[2], string(text))
	case command == "kv undelete" && path != "":
		_, err := client.Logical().Write(options["mount"]+"/undelete/"+path, map[string]any{"versions": []string{options["versions"]}})
		return err
	case command == "kv rollback" && path != "":
		version, err := strconv.Atoi(options["version"])
		if err != nil {
			return err
		}
		from, err := client.Logical().ReadWithData(options["mount"]+"/data/"+path, map[string][]string{"version": {strconv.Itoa(version)}})
		if err != nil || from == nil {
			return fmt.Errorf("version %d cannot be read: %w", version, err)
		}
		_, err = client.Logical().Write(options["mount"]+"/data/"+path, map[string]any{"data": from.Data["data"]})
		return err
	}
	return fmt.Errorf("the drill does not know: vault %s", strings.Join(args, " "))
}
