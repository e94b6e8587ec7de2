// Package stack reads what a deployed stack says of itself, with the credentials that the AWS command line would use. It
// changes nothing.
package stack

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
)

// Environment is what the stack's own functions find in their environment: region, credentials, tables and settings, by
// the names that package app reads. It looks in the region and profile that the AWS command line would use.
func Environment(ctx context.Context, name string) (map[string]string, error) {
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the AWS configuration: %w", err)
	}
	if c.Region == "" {
		return nil, errors.New("no AWS region: set AWS_DEFAULT_REGION, or one in your profile")
	}
	credentials, err := c.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("finding AWS credentials (is there a profile, or AWS_ACCESS_KEY_ID?): %w", err)
	}
	found, err := describe(ctx, c, name)
	if err != nil {
		return nil, err
	}
	environment := map[string]string{
		"AWS_REGION": c.Region, "AWS_ACCESS_KEY_ID": credentials.AccessKeyID, "AWS_SECRET_ACCESS_KEY": credentials.SecretAccessKey,
		"AWS_SESSION_TOKEN": credentials.SessionToken,
	}
	for variable, of := range map[string]string{"LATCHKEY_KEYS_TABLE": "KeysTable", "LATCHKEY_AUDIT_TABLE": "AuditTable", "LATCHKEY_CHAIN_TABLE": "ChainTable", "LATCHKEY_EVENT_BUS": "EventBus",
		"LATCHKEY_BRAND": "Brand", "LATCHKEY_RETIRED_BRANDS": "RetiredBrands", "LATCHKEY_PLANS": "Plans", "LATCHKEY_DEFAULT_PLAN": "DefaultPlan"} {
		environment[variable] = found[of]
	}
	if environment["LATCHKEY_KEYS_TABLE"] == "" || environment["LATCHKEY_AUDIT_TABLE"] == "" {
		return nil, fmt.Errorf("the stack %s has no outputs KeysTable and AuditTable: is it Latchkey's, and was its deployment completed?", name)
	}
	return environment, nil
}

// describe is the stack's parameters and outputs by name.
func describe(ctx context.Context, c aws.Config, name string) (map[string]string, error) {
	out, err := cloudformation.NewFromConfig(c).DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &name})
	if err != nil {
		return nil, fmt.Errorf("reading the stack %s in %s: %w", name, c.Region, err)
	}
	if len(out.Stacks) != 1 {
		return nil, errors.New("there is no stack " + name)
	}
	return facts(out.Stacks[0]), nil
}

func facts(s types.Stack) map[string]string {
	found := map[string]string{}
	for _, p := range s.Parameters {
		found[aws.ToString(p.ParameterKey)] = aws.ToString(p.ParameterValue)
	}
	for _, o := range s.Outputs {
		found[aws.ToString(o.OutputKey)] = aws.ToString(o.OutputValue)
	}
	return found
}
